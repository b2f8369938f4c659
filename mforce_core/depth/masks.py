"""Masks of valid pixels: pictures and arrays, bright where the depth counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..picture.files import is_deep_gray, open_image
from ..picture.reading import upright
from .arrays import as_map, read_npy


def read_mask(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A mask (H, W) bool: pixels brighter than half of white count, so that the ringing of JPEG changes nothing.

    Of a picture whose colors say nothing, its alpha is the mask; beside other colors both must be above half. White is
    1, 255 or 65535, whichever the brightest pixel fits into. Boolean arrays are taken as they are.

    Raises:
        ValueError: no mask, or of another size than ``shape``.
    """
    if path.suffix.lower() == ".npy":
        mask = _bright(as_map(path, read_npy(path), kinds="fiub"))
    else:
        mask = _of_picture(upright(open_image(path), path.name, []))
    if mask.shape != tuple(shape):
        raise ValueError(
            f"The mask {path} is {mask.shape[1]}x{mask.shape[0]} and the depth map {shape[1]}x{shape[0]}: "
            "they must have the same size."
        )
    return mask


def _of_picture(image: Image.Image) -> np.ndarray:
    if is_deep_gray(image):
        return _bright(np.asarray(image))
    if not image.has_transparency_data:
        return _bright(np.asarray(image.convert("L")))
    layers = image.convert("RGBA")
    opaque = _bright(np.asarray(layers.getchannel("A")))
    gray = np.asarray(layers.convert("RGB").convert("L"))
    # Also where only the transparent pixels differ, as programs leave them black.
    if gray.min() == gray.max() or (opaque.any() and not opaque.all() and np.ptp(gray[opaque]) == 0):
        return opaque
    return opaque & _bright(gray)


def _bright(values: np.ndarray) -> np.ndarray:
    if values.dtype == bool:
        return values
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0)
    top = numbers.max()
    white = next((white for white in (1.0, 255.0, 65535.0) if top <= white), top)
    return numbers * 2 > white
