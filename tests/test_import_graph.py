"""The real import graph: no cycle of modules or folders, the packages that CONTRIBUTING.md names, imports at the head,
short files."""

import ast
import graphlib
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGES = ("kernels", "mforce_core", "nodes", "scenes", "evaluation", "training", "benchmarks", "cli")
LONGEST_FILE = 500

#: Libraries that a function may import, since a module that needs them must load without them.
OPTIONAL_LIBRARIES = {
    "OpenEXR": "the only library of the nodes that ComfyUI does not bring",
    "av": "video extra",
    "comfy_kitchen": "a back end of the kernels, chosen where it is installed",
    "cv2": "flow extra",
    "gradio": "app extra",
    "gguf": "an extra, for quantized checkpoints",
    "matplotlib": "training extra",
    "pillow_heif": "heic extra",
    "pxr": "an extra, for USD cameras",
    "tqdm": "training extra",
    "torch.utils.tensorboard": "training extra",
    "transformers": "standalone extra",
    "triton": "Linux only",
    "webdataset": "training extra",
    "xformers": "a back end of the kernels, chosen where it is installed",
}

#: Libraries that a function may import because they would slow the start of ComfyUI or of the command line.
SLOW_LIBRARIES = {
    "PIL": "start of the pack",
    "safetensors.torch": "headers are read without PyTorch's part",
    "scipy": "start of the pack",
    "torch": "start of the command line",
}

#: Modules -> why their functions may import modules of this project.
LATE_MODULES = {
    "mforce": "ComfyUI calls the entry point when it loads the pack; others import the package without ComfyUI",
    "mforce.benchmarks.suite": "the section on training needs an extra that the others do not",
    "mforce.cli.*": "`mforce --help` starts without PyTorch: each command imports its work when it runs",
    "mforce.nodes.host.views": "start of the pack: most sessions render no view",
    "mforce.nodes.load_model": "start of the pack: the transformer's modules load with the first model",
    "mforce.kernels.triton": "the modules beside it need Triton, which only Linux has",
}


def module_name(file: Path) -> str:
    parts = ["mforce", *file.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = [*sorted(ROOT.glob("*.py")), *(file for name in PACKAGES for file in sorted((ROOT / name).rglob("*.py")))]
MODULES = {module_name(file): file for file in FILES}


def statements(module: str) -> Iterator[tuple[str, bool]]:
    """(imported module, inside a function) of every import that runs; those for type checkers alone do not."""
    file = MODULES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                ancestors = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
                source = ".".join([*ancestors, *filter(None, [child.module])])
                for alias in child.names:
                    submodule = f"{source}.{alias.name}"
                    yield submodule if submodule in MODULES else source, inside
            else:
                yield from walk(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), False)


IMPORTS = {module: list(statements(module)) for module in MODULES}


def package_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") and module.split(".")[1] in PACKAGES else ""


def folder_of(module: str) -> str:
    """The folder inside a package that a module is in, whatever is inside that one; a module beside them is alone."""
    inside = MODULES[module].parent.relative_to(ROOT).parts
    return ".".join(["mforce", *inside[:2]]) if len(inside) > 1 else module


@pytest.mark.parametrize("unit", [lambda module: module, folder_of], ids=["modules", "folders"])
def test_imports_go_one_way(unit: Callable[[str], str]) -> None:
    graph: dict[str, set[str]] = {unit(module): set() for module in MODULES}
    for module, imports in IMPORTS.items():
        graph[unit(module)] |= {unit(name) for name, _ in imports if name in MODULES} - {unit(module)}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_packages_import_what_the_guide_for_contributors_says() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|[^|]*\|([^|]*)\|$", guide, re.MULTILINE)
    documented = {package: set(re.findall(r"`(\w+)`", others)) for package, others in rows}
    real = {package: set() for package in PACKAGES}
    for module, imports in IMPORTS.items():
        for name, _ in imports:
            target = package_of(name) if name in MODULES else ""
            if package_of(module) and target and target != package_of(module):
                real[package_of(module)].add(target)
    assert documented == real


def late_import_is_allowed(module: str, name: str) -> bool:
    if name in MODULES:
        return any(fnmatch(module, late) for late in LATE_MODULES)
    return any(name == library or name.startswith(library + ".") for library in OPTIONAL_LIBRARIES | SLOW_LIBRARIES)


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_import_only_what_is_optional_or_slow_to_start(package: str) -> None:
    late = {
        f"{module} imports {name} in a function"
        for module, imports in IMPORTS.items()
        for name, inside in imports
        if package_of(module) == package and inside and not late_import_is_allowed(module, name)
    }
    assert not late, "\n".join(sorted(late))


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "docs"])
def test_files_are_short(folder: str) -> None:
    lengths = {
        file.relative_to(ROOT).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in (ROOT / folder).rglob("*.py")
    }
    assert lengths
    assert not {file: length for file, length in lengths.items() if length > LONGEST_FILE}


def test_every_package_is_installed() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert sorted(declared) == sorted(name for name, file in MODULES.items() if file.name == "__init__.py")
