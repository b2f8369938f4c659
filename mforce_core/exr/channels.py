"""The channels of OpenEXR files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..file_kinds import what_is
from ..reasons import reason_of
from .header import check_header


class Channel(NamedTuple):
    """Pixels (H, W) of the data window, and the header of their part."""

    pixels: np.ndarray
    header: dict[str, Any]


def read_channels(path: Path) -> dict[str, Channel]:
    """All channels of a file by their full names, "layer.Z", the name of a part before them where there are several.

    Raises:
        ValueError: not such a file, damaged, cut short or deep.
        ModuleNotFoundError: OpenEXR is not installed.
    """
    openexr = import_openexr()
    try:
        check_header(path)
    except ValueError as error:
        kind = what_is(path)
        if kind is not None and not kind.startswith("an OpenEXR"):
            raise ValueError(f"{path} is not an OpenEXR file but {kind}.") from None
        raise error
    found = {}
    try:
        with openexr.File(str(path), separate_channels=True) as file:
            for part in file.parts:
                for name, channel in part.channels.items():
                    full = _full_name(part.name(), name) if len(file.parts) > 1 else name
                    if channel.pixels is not None:
                        found[full] = Channel(channel.pixels, dict(part.header))
    except Exception as error:  # the library raises plain RuntimeError and others for bad files
        raise ValueError(f"{path} is not a readable OpenEXR file ({reason_of(error)}).") from None
    if not found:
        raise ValueError(f"{path} is damaged: none of its pixels can be read; copy or render it again.")
    return found


def sibling(name: str, component: str) -> str:
    """Name of another channel of the same layer."""
    layer, dot, own = name.rpartition(".")
    return f"{layer}{dot}{component.lower() if own.islower() else component}"


def in_display_window(values: np.ndarray, header: dict[str, Any]) -> np.ndarray:
    """The whole picture of a file that holds the pixels of a part of it, or of more; NaN where there is none."""
    (left, top), (right, bottom) = (np.asarray(corner).tolist() for corner in header["displayWindow"])
    x, y = np.asarray(header["dataWindow"][0]).tolist()
    whole = np.full((bottom - top + 1, right - left + 1), np.nan, dtype=values.dtype)
    inner = values[max(0, top - y) : max(0, bottom + 1 - y), max(0, left - x) : max(0, right + 1 - x)]
    at_y, at_x = max(0, y - top), max(0, x - left)
    whole[at_y : at_y + inner.shape[0], at_x : at_x + inner.shape[1]] = inner
    return whole


def import_openexr() -> ModuleType:
    """The OpenEXR package; raises ModuleNotFoundError with how to install it."""
    try:
        import OpenEXR
    except ModuleNotFoundError:
        raise ModuleNotFoundError("EXR files need the OpenEXR package: pip install OpenEXR.") from None
    return OpenEXR


def _full_name(part: str, name: str) -> str:
    """Name of a channel in a file of several parts; layers that repeat the part's name are left alone."""
    return name if not part or name.startswith(f"{part}.") else f"{part}.{name}"
