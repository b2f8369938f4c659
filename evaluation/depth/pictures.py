"""Decoding the files of data sets from memory, with one sentence where that fails."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from ...mforce_core.picture.files import MAX_PIXELS
from ...mforce_core.reasons import reason_of


def open_picture(content: bytes, name: str) -> Image.Image:
    """A decoded picture; raises ValueError."""
    try:
        image = Image.open(BytesIO(content), formats=("PNG", "JPEG", "TIFF", "WEBP", "BMP"))
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{name} has {image.width}x{image.height} pixels, too many")
        image.load()
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders pass on what damaged data does to them
        raise ValueError(f"{name} cannot be decoded ({reason_of(error)})") from None
    return image


def rgb(content: bytes, name: str) -> np.ndarray:
    """(H, W, 3) uint8; raises ValueError."""
    return np.asarray(open_picture(content, name).convert("RGB"))


def levels(content: bytes, name: str) -> np.ndarray:
    """The numbers of a gray picture of up to 16 (or 32) bits, (H, W) int32; raises ValueError."""
    array = np.asarray(open_picture(content, name))
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise ValueError(f"{name} is no gray picture of integers")
    return array.astype(np.int32)


def array(content: bytes, name: str) -> np.ndarray:
    """The numbers of a .npy file as (H, W); raises ValueError."""
    try:
        values = np.load(BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy passes on what its header parser meets
        raise ValueError(f"{name} is no plain .npy array ({reason_of(error)})") from None
    values = values.squeeze() if isinstance(values, np.ndarray) else np.empty(0)
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise ValueError(f"{name} has shape {values.shape}, which is no map")
    return values
