"""A depth map as a color picture: inverse depth, near = warm."""

from __future__ import annotations

import numpy as np

from ..mforce_core.depth.colormaps import colorize

_MISSING = (40, 40, 40)


def nearness(depth: np.ndarray) -> np.ndarray:
    """Inverse depth (H, W), its 2nd to 98th percentile stretched to [0, 1]; NaN where depth is missing."""
    inverse = 1.0 / depth.astype(np.float64)
    low, high = np.nanpercentile(inverse, (2, 98))
    if high <= low:
        return np.where(np.isnan(inverse), np.nan, 0.5)
    return np.clip((inverse - low) / (high - low), 0, 1)


def depth_preview(depth: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 colors of a depth map (H, W); dark gray where it is missing."""
    near = nearness(depth)
    known = ~np.isnan(near)
    picture = np.empty((*depth.shape, 3), dtype=np.uint8)
    picture[:] = _MISSING
    picture[known] = (255 * colorize(near[known], "spectral")).round().astype(np.uint8)
    return picture
