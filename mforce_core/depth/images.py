"""Depth in PNG and TIFF files: 16 bits, floats, and the 8-bit disparity maps that most depth estimators save."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..picture.files import frame_count, is_deep_gray, open_image
from ..picture.reading import upright
from .encoding import KEY, PLAIN, Encoding
from .missing_pixels import no_data_value, present_pixels

#: Larger than this many medians, 16-bit values are clipped, so that one far pixel cannot use up all the steps.
FAR_LIMIT = 20.0

#: The last level of a 16-bit file.
LEVELS = 65535

_DESCRIPTION, _BITS = 270, 258  # numbers of a TIFF's ImageDescription and BitsPerSample


class ImageDepth(NamedTuple):
    """What a PNG or TIFF holds.

    Attributes:
        numbers: (H, W).
        encoding: what they mean, None where the file does not say.
        levels: the last level of integers, None of floats.
        present: (H, W) bool: False where the file says that there is no number.
        notes: sentences on what was in the file.
    """

    numbers: np.ndarray
    encoding: Encoding | None
    levels: int | None
    present: np.ndarray
    notes: list[str]


def read_image(path: Path) -> ImageDepth:
    """The one channel of a PNG or TIFF, upright.

    Raises:
        ValueError: not such a file, damaged, or a color picture.
    """
    image = open_image(path)
    notes: list[str] = []
    if not is_deep_gray(image) and _bits(image, path) > 8:
        raise ValueError(
            f"{path} is a 16-bit {image.format} with {'an alpha channel' if 'A' in image.mode else 'colors'}, of which"
            " only 8 bits can be read: save it as 16-bit gray without alpha, .npy or .exr."
        )
    text, value = _own_entry(image) if is_deep_gray(image) else None, no_data_value(image)
    encoding = None if text is None else Encoding.from_text(text, path)
    original, image = image, upright(image, path.name, notes)
    numbers, levels = _gray(image, path)
    present = present_pixels(image, numbers, value, path.name, notes)
    count = frame_count(original)
    if count > 1:
        notes.append(f"{path.name} has {count} frames; only the first is used.")
    return ImageDepth(numbers, encoding, levels, present, notes)


def _gray(image: Image.Image, path: Path) -> tuple[np.ndarray, int | None]:
    """Numbers (H, W), and the last level of integers."""
    if is_deep_gray(image):
        return np.asarray(image), None if image.mode == "F" else LEVELS
    if image.mode in ("L", "1", "LA"):
        gray = image.getchannel(0) if image.mode == "LA" else image.convert("L")
        return np.asarray(gray), 255
    colors = np.asarray(image.convert("RGB"))
    if (colors == colors[..., :1]).all():
        return colors[..., 0], 255
    raise ValueError(
        f"{path} is a color picture ({image.mode}): depth needs one channel; use 16-bit png or tiff, npy or exr."
    )


def _bits(image: Image.Image, path: Path) -> int:
    """Bits of a channel."""
    if image.format == "TIFF":
        found = getattr(image, "tag_v2", {}).get(_BITS, 1)
        return max(found) if isinstance(found, tuple) else int(found)
    return png_bits(path) or 8


def png_bits(path: Path) -> int | None:
    """Bits per channel in the header of a PNG; None for other files."""
    with path.open("rb") as file:
        start = file.read(26)
    return start[24] if start[:4] == b"\x89PNG" and len(start) > 25 else None


def write_16_bit(
    path: Path,
    values: np.ndarray,
    encoding: Encoding = PLAIN,
    *,
    step: float | None = None,
    text: Mapping[str, str] | None = None,
) -> float:
    """Write positive values (H, W), NaN = missing, as a 16-bit gray PNG, 0 = missing.

    Args:
        encoding: what the values mean; the file's own entry speaks of its levels.
        step: value of one level; None: so that the largest value, or FAR_LIMIT medians, is the last level.
        text: more texts for the file.

    Returns:
        The step: value = level * step, and no value is larger than 65535 steps.
    """
    levels, step = to_levels(values, step)
    info = PngInfo()
    info.add_text(KEY, replace(encoding, scale=encoding.scale * step).to_text())
    for key, value in (text or {}).items():
        info.add_text(key, value)
    Image.fromarray(levels).save(path, pnginfo=info)
    return step


def write_float_tiff(path: Path, values: np.ndarray, encoding: Encoding = PLAIN) -> None:
    """Write values (H, W) as a 32-bit float TIFF; missing pixels (NaN) are 0, the description says what they mean."""
    numbers = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    description = json.dumps({KEY: encoding.to_text()})
    Image.fromarray(numbers).save(path, format="TIFF", tiffinfo={_DESCRIPTION: description})


def to_levels(values: np.ndarray, step: float | None = None) -> tuple[np.ndarray, float]:
    """Positive values (H, W), NaN = missing, as 16-bit levels, 0 = missing, and the value of one level."""
    known = np.isfinite(values)
    numbers = values[known].astype(np.float64)
    if step is None:
        step = min(float(numbers.max()), FAR_LIMIT * float(np.median(numbers))) / LEVELS if numbers.size else 1.0
    levels = np.zeros(values.shape, dtype=np.uint16)
    levels[known] = np.clip(np.round(numbers / step), 1, LEVELS).astype(np.uint16)
    return levels, step


def _own_entry(image: Image.Image) -> str | None:
    """What a file says its numbers mean: in the text of a PNG, in the description of a TIFF."""
    if image.format != "TIFF":
        return getattr(image, "text", {}).get(KEY)
    try:
        description = json.loads(str(getattr(image, "tag_v2", {}).get(_DESCRIPTION, "")))
    except (ValueError, RecursionError):  # other programs write anything there
        return None
    return description.get(KEY) if isinstance(description, dict) else None
