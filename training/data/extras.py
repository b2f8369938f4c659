"""Packages of the ``train`` and ``ray`` extras, imported when they are first needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def need(module: str, purpose: str, extra: str = "train") -> ModuleType:
    """Import ``module``.

    Raises:
        ModuleNotFoundError: in one sentence, which package is missing for what, and how it is installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name is not None and error.name.split(".")[0] != package:
            raise
        raise ModuleNotFoundError(
            f"{purpose} needs the package {package}: pip install 'comfyui-modality-forcing[{extra}]'."
        ) from None
