"""What is imported from outside: light start-up, no ComfyUI outside nodes, no pickles, optional libraries only when
they are needed. What the packages import of each other is in test_import_graph.py."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PACKAGES = sorted(file.parent.name for file in ROOT.glob("*/__init__.py"))

#: Compiled with Triton, so they may import it at their head; elsewhere in the kernels a function may, when it is asked.
TRITON_MODULES = "kernels/triton/"
OPTIONAL = {"triton", "xformers", "comfy_kitchen"}


def imports(file: Path) -> list[tuple[int, str]]:
    """(level, module) of every import statement, level 0 for absolute ones."""
    return _imports_in(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


def head_imports(file: Path) -> list[tuple[int, str]]:
    """Those that run with the module, where it asks for the operating system first, too."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    chosen = [node for branch in body if isinstance(branch, ast.If) for node in (*branch.body, *branch.orelse)]
    return _imports_in([*body, *chosen])


def _imports_in(nodes: Iterable[ast.AST]) -> list[tuple[int, str]]:
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_hosts_and_optional_libraries_are_imported_where_they_belong(package: str) -> None:
    for file in sources(package):
        for level, module in imports(file):
            top = module.split(".")[0]
            if level == 0:
                assert top != "mforce", f"{file}: absolute import of {module}"
                assert package == "kernels" or top not in OPTIONAL, f"{file} imports {module}"
                if package != "nodes" and top not in OPTIONAL:
                    assert not top.startswith("comfy"), f"{file} imports {module}"


def test_the_kernels_import_optional_libraries_when_they_need_them() -> None:
    for file in sources("kernels"):
        if not file.relative_to(ROOT).as_posix().startswith(TRITON_MODULES):
            found = {module.split(".")[0] for level, module in head_imports(file) if level == 0}
            assert not found & OPTIONAL, file


#: Modules that run code from what they read, and calls of others that do.
PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
UNPICKLING = {"torch.load", "pandas.read_pickle", "pd.read_pickle", "yaml.load", "yaml.unsafe_load"}


def unpickling(file: Path) -> Iterator[str]:
    """What in a file may read a pickle."""
    yield from (module for level, module in imports(file) if level == 0 and module.split(".")[0] in PICKLES)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in UNPICKLING or name.endswith("FileSystemReader"):
                yield name
            for keyword in node.keywords:
                value = ast.unparse(keyword.value)
                if keyword.arg == "allow_pickle" and value != "False":
                    yield f"{name}(allow_pickle={value})"


def test_nothing_unpickles() -> None:
    for package in PACKAGES:
        for file in sources(package):
            assert not [*unpickling(file)], file


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)",
        "dcp.load(tensors, storage_reader=dcp.FileSystemReader(path))",
    ],
)
def test_what_would_unpickle_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "module.py").write_text(line)
    assert [*unpickling(tmp_path / "module.py")]
    (tmp_path / "module.py").write_text("np.load(path, allow_pickle=False)")
    assert not [*unpickling(tmp_path / "module.py")]


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in run.stdout.split()}


def test_importing_the_package_is_light() -> None:
    assert not modules_after("import mforce") & {"torch", "numpy", "comfy", "comfy_api", "triton", "typer"}


def test_the_defaults_of_the_release_are_read_without_torch() -> None:
    assert not modules_after("import mforce.mforce_core.release") & {"torch", "numpy", "einops"}


def test_importing_the_core_needs_neither_optional_libraries_nor_hosts() -> None:
    missing = ("triton", "xformers", "typer", "rich", "OpenEXR", "transformers", "pydantic")
    code = f"sys.modules |= dict.fromkeys({missing})"
    loaded = modules_after(f"{code}; from mforce.mforce_core import *")
    assert "torch" in loaded
    assert not loaded & {"comfy", "comfy_api", "scipy", "trimesh"}


def test_the_evaluation_needs_no_training_extra() -> None:
    modules_after("sys.modules |= dict.fromkeys(('tqdm', 'pydantic')); import mforce.cli.evaluation")


def test_the_pack_root_is_not_on_the_path() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import mforce, sys; print(*sys.path, sep='\\n')"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parent,
    )
    assert str(ROOT) not in run.stdout.splitlines()
