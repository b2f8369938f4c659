"""Depth in OpenEXR files, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..exr.channels import Channel, import_openexr, in_display_window, read_channels, sibling
from ..exr.names import color_layers
from .encoding import KEY, PLAIN, Encoding
from .exr_channels import choose_channel, is_inverse, matching_channels


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
    channels = read_channels(path)
    name, notes = _choose(path, channels, wanted)
    values, header = channels[name]
    if values.ndim != 2 or values.dtype == object:
        raise ValueError(f"{path} holds deep data: flatten it to one depth per pixel.")
    if values.dtype.kind != "f":
        values = values.astype(np.float32)
    alpha = channels.get(sibling(name, "A"))
    if alpha is not None and alpha.pixels.shape == values.shape:
        opaque = alpha.pixels > 0
        if opaque.any():
            values = np.where(opaque, values, np.nan).astype(values.dtype)
        else:
            notes = (*notes, f"{path.name} has an alpha of 0 everywhere; it was not used.")
    values = in_display_window(values, header)
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
    openexr = import_openexr()
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage, KEY: encoding.to_text()}
    file = openexr.File({**header, **(attributes or {})}, dict(channels))
    try:
        file.write(str(path))
    except RuntimeError as error:  # its message is "... image file "PATH". No space left on device."
        raise OSError(str(error).partition(f'"{path}". ')[2] or str(error)) from error


def _choose(path: Path, channels: dict[str, Channel], wanted: str | None) -> tuple[str, tuple[str, ...]]:
    """Name of the channel that is read, and notes on others that could have been."""
    listed = ", ".join(sorted(channels))
    if wanted is not None:
        found = matching_channels(list(channels), wanted)
        if not found:
            raise ValueError(f"{path} has the channels {listed}, none is {wanted}.")
        name, others = found[0], tuple(found[1:])
    else:
        choice = choose_channel(list(channels), gray_color=[name for name in channels if _is_gray(name, channels)])
        if choice is None:
            what = "it is a color picture" if color_layers(channels) else "none is depth"
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


def _is_gray(name: str, channels: dict[str, Channel]) -> bool:
    """Whether a red channel is no color: the file says that it is depth, or green and blue are the same."""
    if name.rpartition(".")[2].lower() != "r":
        return False
    red, header = channels[name]
    if KEY in header:
        return True
    others = [channels.get(sibling(name, component)) for component in "GB"]
    return all(other is not None and np.array_equal(red, other.pixels, equal_nan=True) for other in others)
