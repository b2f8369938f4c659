"""Pixels of a PNG or TIFF that the file itself calls missing: transparent ones, and GDAL's value for no data."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..picture.files import is_deep_gray

_NO_DATA = 42113  # number of a TIFF's tag, in whose text GDAL writes the value


def present_pixels(
    image: Image.Image, numbers: np.ndarray, void_value: float | None, name: str, notes: list[str]
) -> np.ndarray:
    """Where (H, W) bool the numbers (H, W) of an opened image count; adds what the others are to ``notes``.

    Args:
        void_value: what `no_data_value` found.
    """
    clear = _transparent(image, numbers)
    if clear.all():
        notes.append(f"{name} has an alpha of 0 everywhere; it was not used.")
        clear = np.zeros_like(clear)
    elif clear.any():
        notes.append(f"{name} has {int(clear.sum())} transparent pixels; they count as missing.")
    if void_value is None:
        return ~clear
    # A file writes more digits than a float has.
    void = np.isclose(numbers.astype(np.float64), void_value, rtol=1e-6, atol=0)
    if void.any():
        notes.append(
            f"{name} has {int(void.sum())} pixels of {void_value:g}, its sign for no data; they count as missing."
        )
    return ~(clear | void)


def no_data_value(image: Image.Image) -> float | None:
    """The value that GDAL calls no data in an opened TIFF."""
    try:
        return float(str(getattr(image, "tag_v2", {}).get(_NO_DATA)).rstrip("\x00 "))
    except ValueError:
        return None


def _transparent(image: Image.Image, numbers: np.ndarray) -> np.ndarray:
    if is_deep_gray(image):
        # A PNG without alpha may name one level that is transparent.
        return numbers == image.info.get("transparency", np.nan)
    if not image.has_transparency_data:
        return np.zeros(numbers.shape, dtype=bool)
    return np.asarray(image.convert("RGBA").getchannel("A")) == 0
