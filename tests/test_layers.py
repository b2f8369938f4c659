"""What imports what: light start-up, no ComfyUI outside nodes, no pickles, nothing above its layer."""

import ast
import subprocess
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Package -> packages of this project that it may import.
LAYERS: dict[str, set[str]] = {
    "kernels": set(),
    "mforce_core": {"kernels"},
    "nodes": {"kernels", "mforce_core"},
    "scenes": set(),
    "evaluation": {"mforce_core", "scenes"},
    "training": {"kernels", "mforce_core", "scenes", "evaluation"},
    "cli": {"benchmarks", "kernels", "mforce_core", "evaluation", "training"},
    "benchmarks": {"kernels", "mforce_core", "training", "evaluation"},
}

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


def modules_imported_at_the_head_of(file: Path) -> set[Path]:
    """Files of this project that a file's head imports by relative imports; a package counts as its ``__init__``."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            targets = [folder / alias.name for alias in node.names]
            candidates = [_file_of(target) or _file_of(folder) for target in targets]
            found |= {target for target in candidates if target is not None and target != file}
    return found


def _file_of(module: Path) -> Path | None:
    candidates = (module.with_suffix(".py"), module / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", LAYERS)
def test_layers(package: str) -> None:
    assert sources(package)
    for file in sources(package):
        depth = len(file.relative_to(ROOT).parts) - 1
        for level, module in imports(file):
            if level == 0:
                top = module.split(".")[0]
                assert top != "mforce", f"{file}: absolute import of {module}"
                assert package == "kernels" or top not in OPTIONAL, f"{file} imports {module}"
                if package != "nodes" and top not in OPTIONAL:
                    assert not top.startswith("comfy"), f"{file} imports {module}"
            elif level > depth:  # reaches the pack's root, so `module` starts with a package
                target = module.split(".")[0]
                assert target in LAYERS[package] | {package, "", "version"}, f"{file} imports {module}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    files = [file for package in LAYERS for file in sources(package)]
    # Raises CycleError, which names the circle.
    order = list(TopologicalSorter({file: modules_imported_at_the_head_of(file) for file in files}).static_order())
    assert order.index(ROOT / "kernels" / "registry.py") < order.index(ROOT / "kernels" / "adaln.py")


def test_functions_of_the_kernels_import_only_what_is_optional() -> None:
    for file in sources("kernels"):
        head = head_imports(file)
        for level, module in imports(file):
            if (level, module) not in head and file != ROOT / "kernels" / "triton" / "__init__.py":
                assert module.split(".")[0] in OPTIONAL, f"{file} imports {module} in a function"


def test_the_kernels_import_optional_libraries_when_they_need_them() -> None:
    for file in sources("kernels"):
        if not file.relative_to(ROOT).as_posix().startswith(TRITON_MODULES):
            found = {module.split(".")[0] for level, module in head_imports(file) if level == 0}
            assert not found & OPTIONAL, file


def test_nothing_unpickles() -> None:
    for package in LAYERS:
        for file in sources(package):
            text = file.read_text(encoding="utf-8")
            assert "torch.load(" not in text, file
            assert not any(module.split(".")[0] in {"pickle", "joblib", "dill"} for _, module in imports(file)), file


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
