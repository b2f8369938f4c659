"""Packages that one part needs and the rest does not, imported when they are first needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def need(module: str, purpose: str, install: str) -> ModuleType:
    """Import a package of another project.

    Args:
        module: its dotted name.
        purpose: what needs it, as the start of a sentence.
        install: what pip is given.

    Raises:
        ModuleNotFoundError: in one sentence, which package is missing for what, and how it is installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name is None or error.name.split(".")[0] != package:
            raise
        raise ModuleNotFoundError(f"{purpose} needs the package {package}: pip install '{install}'.") from None
