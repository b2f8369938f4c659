"""What the names of channels say: "layer.component", the layer in words of any style."""

from __future__ import annotations

import re
from collections.abc import Iterable


def words(name: str) -> list[str]:
    """Lower-case words of a name: "FinalImage_WorldDepth" and "VRayZDepth.R" are split at capitals and signs too."""
    pieces = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+", name)
    return [piece.lower() for piece in pieces]


def color_layers(names: Iterable[str]) -> list[str]:
    """Layers with red, green and blue, "" for channels outside of any."""
    found: dict[str, set[str]] = {}
    for name in names:
        layer, _, component = name.rpartition(".")
        found.setdefault(layer, set()).add(component.lower())
    return [layer for layer, components in found.items() if {"r", "g", "b"} <= components]
