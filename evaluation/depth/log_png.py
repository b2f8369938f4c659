"""MoGe's depth in a PNG: 16 bits, logarithmic between a near and a far plane that the file's text names."""

from __future__ import annotations

import numpy as np

from .pictures import open_picture

_UNKNOWN, _INFINITE = 0, 65535


def decode_log_png(content: bytes, name: str) -> np.ndarray:
    """Depth (H, W) float32: NaN where unknown, infinite where it is sky; raises ValueError."""
    image = open_picture(content, name)
    try:
        near, far, unit = (
            float(str(image.info.get(key, default)))
            for key, default in (("near", "none"), ("far", "none"), ("unit", 1))
        )
    except ValueError:
        raise ValueError(f"{name} has no near and far plane in its text") from None
    if not 0 < near < far < np.inf:
        raise ValueError(f"{name} has the planes {near:g} and {far:g}")
    values = np.asarray(image)
    if values.ndim != 2 or values.dtype.itemsize < 2:
        raise ValueError(f"{name} has not 16 bits per pixel")
    # Every level's depth once, in float32 as the original computes it.
    level = (np.arange(_INFINITE + 1, dtype=np.float32) - 1) / 65533
    table = (near ** (1 - level) * far**level * unit).astype(np.float32)
    table[_UNKNOWN], table[_INFINITE] = np.nan, np.inf
    return table.take(values)


def is_log_png(content: bytes, name: str) -> bool:
    """Whether a picture says the planes of this format."""
    return {"near", "far"} <= set(open_picture(content, name).info)
