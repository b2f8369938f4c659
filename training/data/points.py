"""LiDAR points in a picture as a sparse depth map."""

from __future__ import annotations

import numpy as np


def rasterize(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Each point in the pixel that it lies in; of several in one pixel the nearest, which hides the others.

    Args:
        points: (n, 3): x to the right and y down in pixels of the picture (the first pixel spans 0 to 1), and depth.
            Points outside the picture, and those without a positive finite depth, are left out.
        size: (height, width) of the picture.

    Returns:
        (height, width) float32, NaN where there is no point.

    Raises:
        ValueError: another shape, or not one point in the picture.
    """
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        raise ValueError(f"the points have shape {points.shape}: they are (n, 3) numbers, x, y in pixels and depth")
    x, y, depth = points.astype(np.float64).T
    inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0]) & (depth > 0) & np.isfinite(depth)
    if not inside.any():
        raise ValueError(f"none of the {len(points)} points lies in the picture with a positive depth")
    found = np.full(size, np.inf)
    np.minimum.at(found, (y[inside].astype(np.int64), x[inside].astype(np.int64)), depth[inside])
    return np.where(np.isinf(found), np.nan, found).astype(np.float32)
