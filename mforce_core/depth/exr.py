"""Depth in OpenEXR files, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from ..file_kinds import what_is
from ..reasons import reason_of
from .encoding import KEY, PLAIN, Encoding
from .exr_channels import choose_channel, is_color_picture, is_inverse, matching_channels
from .exr_header import check_header


class ExrDepth(NamedTuple):
    """Of the channel that was chosen.

    Attributes:
        numbers: (H, W) floats, NaN where there are none.
        encoding: what the file says they mean, None where it does not.
        notes: on the choice.
        inverse: the channel is called disparity.
    """

    numbers: np.ndarray
    encoding: Encoding | None
    notes: tuple[str, ...]
    inverse: bool


def read_exr(path: Path, wanted: str | None = None) -> ExrDepth:
    """The depth channel of an OpenEXR file, in its display window.

    Args:
        path: of the file, in one or several parts.
        wanted: "Z", "layer.Z" or "layer"; None chooses, see :mod:`.exr_channels`.

    Raises:
        ValueError: not such a file, damaged, cut short, deep, or without a channel that is depth.
        ModuleNotFoundError: OpenEXR is not installed.
    """
    openexr = _import_openexr()
    try:
        check_header(path)
    except ValueError as error:
        kind = what_is(path)
        if kind is not None and not kind.startswith("an OpenEXR"):
            raise ValueError(f"{path} is not an OpenEXR file but {kind}.") from None
        raise error
    try:
        with openexr.File(str(path), separate_channels=True) as file:
            pixels, headers = {}, {}
            for part in file.parts:
                for name, channel in part.channels.items():
                    full = _full_name(part.name(), name) if len(file.parts) > 1 else name
                    pixels[full], headers[full] = channel.pixels, dict(part.header)
    except Exception as error:  # the library raises plain RuntimeError and others for bad files
        raise ValueError(f"{path} is not a readable OpenEXR file ({reason_of(error)}).") from None
    pixels = {name: values for name, values in pixels.items() if values is not None}
    if not pixels:
        raise ValueError(f"{path} is damaged: none of its pixels can be read; copy or render it again.")

    name, notes = _choose(path, pixels, headers, wanted)
    header, values = headers[name], pixels[name]
    if values.ndim != 2 or values.dtype == object:
        raise ValueError(f"{path} holds deep data: flatten it to one depth per pixel.")
    if values.dtype.kind != "f":
        values = values.astype(np.float32)
    alpha = pixels.get(_sibling(name, "A"))
    if alpha is not None and alpha.shape == values.shape:
        opaque = alpha > 0
        if opaque.any():
            values = np.where(opaque, values, np.nan).astype(values.dtype)
        else:
            notes = (*notes, f"{path.name} has an alpha of 0 everywhere; it was not used.")
    values = _in_display_window(values, header["dataWindow"], header["displayWindow"])
    text = header.get(KEY)
    return ExrDepth(values, None if text is None else Encoding.from_text(text, path), notes, is_inverse(name))


def write_exr(
    path: Path,
    values: np.ndarray,
    encoding: Encoding = PLAIN,
    *,
    channel: str = "Z",
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Write values (H, W), NaN = missing, in 32-bit float beside the alpha channel of known pixels.

    Args:
        encoding: what the values mean.
        channel: "Z" is what compositors take for depth; "R" or "RGB" is for programs that look at colors only.
        attributes: more strings for the header.

    Raises:
        ModuleNotFoundError: OpenEXR is not installed.
        OSError: the file cannot be written.
    """
    known = np.isfinite(values)
    finite = np.where(known, values, 0).astype(np.float32)
    channels = dict.fromkeys(channel, finite) | {"A": known.astype(np.float32)}
    write_channels(path, channels, encoding, attributes)


def write_channels(
    path: Path, channels: Mapping[str, np.ndarray], encoding: Encoding, attributes: Mapping[str, str] | None
) -> None:
    """Write named channels (H, W) of 16-bit or 32-bit floats, compressed; see `write_exr`."""
    openexr = _import_openexr()
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage, KEY: encoding.to_text()}
    file = openexr.File({**header, **(attributes or {})}, dict(channels))
    try:
        file.write(str(path))
    except RuntimeError as error:  # its message is "... image file "PATH". No space left on device."
        raise OSError(str(error).partition(f'"{path}". ')[2] or str(error)) from error


def _import_openexr() -> ModuleType:
    """The OpenEXR package; raises ModuleNotFoundError with how to install it."""
    try:
        import OpenEXR
    except ModuleNotFoundError:
        raise ModuleNotFoundError("EXR files need the OpenEXR package: pip install OpenEXR.") from None
    return OpenEXR


def _choose(
    path: Path, pixels: dict[str, np.ndarray], headers: dict[str, dict], wanted: str | None
) -> tuple[str, tuple[str, ...]]:
    """Name of the channel that is read, and notes on others that could have been."""
    listed = ", ".join(sorted(pixels))
    if wanted is not None:
        found = matching_channels(list(pixels), wanted)
        if not found:
            raise ValueError(f"{path} has the channels {listed}, none is {wanted}.")
        name, others = found[0], tuple(found[1:])
    else:
        choice = choose_channel(list(pixels), gray_color=[name for name in pixels if _is_gray(name, pixels, headers)])
        if choice is None:
            what = "it is a color picture" if is_color_picture(list(pixels)) else "none is depth"
            raise ValueError(
                f"{path} has the channels {listed}, {what}: store depth as channel Z, or name its channel."
            )
        name, others = choice
    notes = []
    if others:
        notes.append(f"{path.name}: depth was taken from {name}, not from {', '.join(others)}.")
    elif "." in name:
        notes.append(f"{path.name}: depth was taken from {name}.")
    return name, tuple(notes)


def _is_gray(name: str, pixels: dict[str, np.ndarray], headers: dict[str, dict]) -> bool:
    """Whether a red channel is no color: the file says that it is depth, or green and blue are the same."""
    if name.rpartition(".")[2].lower() != "r":
        return False
    if KEY in headers[name]:
        return True
    red = pixels[name]
    others = [pixels.get(_sibling(name, component)) for component in "GB"]
    return all(other is not None and np.array_equal(red, other, equal_nan=True) for other in others)


def _full_name(part: str, name: str) -> str:
    """Name of a channel in a file of several parts; layers that repeat the part's name are left alone."""
    return name if not part or name.startswith(f"{part}.") else f"{part}.{name}"


def _sibling(name: str, component: str) -> str:
    layer, dot, own = name.rpartition(".")
    return f"{layer}{dot}{component.lower() if own.islower() else component}"


def _in_display_window(values: np.ndarray, data: tuple, display: tuple) -> np.ndarray:
    """The whole picture of a file that holds the pixels of a part of it, or of more; NaN where there is none."""
    (left, top), (right, bottom) = (np.asarray(corner).tolist() for corner in display)
    x, y = np.asarray(data[0]).tolist()
    whole = np.full((bottom - top + 1, right - left + 1), np.nan, dtype=values.dtype)
    inner = values[max(0, top - y) : max(0, bottom + 1 - y), max(0, left - x) : max(0, right + 1 - x)]
    at_y, at_x = max(0, y - top), max(0, x - left)
    whole[at_y : at_y + inner.shape[0], at_x : at_x + inner.shape[1]] = inner
    return whole
