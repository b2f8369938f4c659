"""Every relative import names something that is there, also in modules that only ComfyUI can import."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("benchmarks", "cli", "evaluation", "kernels", "mforce_core", "nodes", "scenes", "training")


@functools.cache
def defined(file: Path) -> set[str]:
    """Names that a module has at its head, those it imports and those under ``if`` and ``try`` included."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_imported_is_there(package: str) -> None:
    for file in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            home = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            source = home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
            assert source.is_file(), f"{file}: {node.module} is no module"
            for alias in node.names:
                found = alias.name in defined(source) or (home / alias.name).with_suffix(".py").is_file()
                assert found or (home / alias.name).is_dir(), f"{file}: {source} has no {alias.name}"
