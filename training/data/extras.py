"""Packages of the extras ``train``, ``convert`` and ``ray``."""

from __future__ import annotations

from types import ModuleType

from ...mforce_core import optional


def need(module: str, purpose: str, extra: str = "train") -> ModuleType:
    """Import ``module``; see `optional.need`."""
    return optional.need(module, purpose, f"comfyui-modality-forcing[{extra}]")
