"""Color pictures in OpenEXR files, which hold linear light, as sRGB: plates and renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..exr.channels import Channel, in_display_window, read_channels
from ..exr.header import MAGIC
from ..exr.names import color_layers, words
from .color import to_bytes, to_srgb

#: Words of layers that are the picture itself, where several have colors.
_PICTURE = frozenset(["combined", "beauty", "rgba", "rgb", "color", "colour", "composite", "final", "image"])
#: Chromaticities of red, green, blue and white (ITU-R BT.709), which a file has that does not say its own.
_BT709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
#: Bradford's, from XYZ to the response of cones.
_CONES = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
#: Rows that are worked on at once, so that large plates need little memory.
_ROWS = 128
#: A share of brighter pixels that is worth a word.
_MANY = 0.01


def is_exr(path: Path) -> bool:
    """Whether the file begins as OpenEXR, by any name."""
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False


def read_exr_picture(path: Path) -> tuple[Image.Image, tuple[str, ...]]:
    """The colors of an OpenEXR file in sRGB, in its display window, over white, and notes on what was changed.

    Light of 1 is white, and so is what is brighter. Colors of other primaries (ACES and others) become those of BT.709
    where the file names them, unless they make no colors.

    Raises:
        ValueError: not such a file, damaged, deep, or without red, green and blue.
        ModuleNotFoundError: OpenEXR is not installed.
    """
    channels = read_channels(path)
    layers = _layers(channels)
    if not layers:
        raise ValueError(f"{path} has the channels {', '.join(sorted(channels))}, which are no color picture.")
    layer, others = layers[0], layers[1:]
    names = {name.rpartition(".")[2].lower(): name for name in channels if name.rpartition(".")[0] == layer}
    red, green, blue = (channels[names[component]] for component in "rgb")
    colors = red, green, blue
    if any(color.pixels.shape != red.pixels.shape or color.pixels.dtype.kind != "f" for color in colors):
        raise ValueError(f"{path} has channels of color that are no light, or of several sizes: render it again.")
    alpha = _alpha(channels.get(names.get("a", "")), red)
    picture, bright = _coded(_whole(colors), _to_bt709(red.header), alpha)
    notes = [f"{path.name} holds linear light; it was coded as sRGB."]
    if others:
        notes.append(f"{path.name}: the picture was taken from {layer or 'RGB'}, not from {', '.join(others)}.")
    if bright > _MANY:
        notes.append(f"{path.name} is brighter than white in {bright:.0%} of its pixels, which are white now.")
    if alpha is not None:
        notes.append(f"{path.name} has transparent pixels; they were put on white.")
    return picture, tuple(notes)


def _alpha(channel: Channel | None, color: Channel) -> torch.Tensor | None:
    """(H, W, 1) opacity in [0, 1], None where all of the picture counts."""
    if channel is None or channel.pixels.shape != color.pixels.shape or channel.pixels.dtype.kind != "f":
        return None
    alpha = _whole([channel]).clamp(0, 1)
    return alpha if float(alpha.min()) < 1 and float(alpha.max()) > 0 else None


def _coded(light: torch.Tensor, to_bt709: np.ndarray, alpha: torch.Tensor | None) -> tuple[Image.Image, float]:
    """The picture of linear light (H, W, 3), and the share of its pixels that are brighter than white."""
    made, bright = np.empty(light.shape, np.uint8), 0
    matrix = torch.tensor(to_bt709, dtype=light.dtype).T
    for start in range(0, len(light), _ROWS):
        rows = slice(start, start + _ROWS)
        part = light[rows] @ matrix
        bright += int((part > 1).any(-1).sum())
        if alpha is not None:
            part += 1 - alpha[rows]  # colors are stored times alpha
        made[rows] = to_bytes(to_srgb(part.clamp(0, 1))).numpy()
    return Image.fromarray(made), bright / (light.shape[0] * light.shape[1])


def _layers(channels: Mapping[str, Channel]) -> list[str]:
    """Layers of color, the likeliest picture first."""
    layers = color_layers(channels)
    return sorted(layers, key=lambda layer: (layer != "", _PICTURE.isdisjoint(words(layer)), layer.count("."), layer))


def _whole(channels: Sequence[Channel]) -> torch.Tensor:
    """(H, W, C) float32 in the display window; what is missing, or is no number, is 0."""
    planes = [in_display_window(channel.pixels, channel.header) for channel in channels]
    whole = np.stack(planes, -1, dtype=np.float32, casting="same_kind")
    return torch.from_numpy(np.nan_to_num(whole, copy=False, nan=0.0, posinf=65504.0, neginf=0.0))


def _to_bt709(header: Mapping[str, object]) -> np.ndarray:
    """Matrix from a file's linear colors to those of BT.709, white staying white (Bradford)."""
    said = header.get("chromaticities")
    if not isinstance(said, tuple):  # an attribute of this name may hold anything
        return np.eye(3)
    own_colors = np.asarray(said, np.float64)
    if np.abs(own_colors - _BT709).max() < 1e-3:
        return np.eye(3)
    cones = np.asarray(_CONES)
    try:
        with np.errstate(all="ignore"):
            own, own_white = _to_xyz(own_colors)
            usual, white = _to_xyz(np.asarray(_BT709))
            adapt = np.linalg.inv(cones) @ np.diag(cones @ white / (cones @ own_white)) @ cones
            matrix = np.linalg.inv(usual) @ adapt @ own
    except np.linalg.LinAlgError:
        return np.eye(3)
    return matrix if np.isfinite(matrix).all() else np.eye(3)


def _to_xyz(chromaticities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrix of linear colors to CIE XYZ, and XYZ of white (SMPTE RP 177)."""
    x, y = chromaticities[0::2], chromaticities[1::2]
    columns = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3]), columns[:, 3]
