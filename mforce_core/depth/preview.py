"""A depth map as a color picture: inverse depth, near is warm."""

from __future__ import annotations

import numpy as np
from einops import rearrange
from torch import Tensor

from .colormaps import colorize
from .range import normalized_disparity

_MISSING = (40, 40, 40)
#: Percent of the pixels whose depth lies beyond either end of the colors.
_CLIPPED = 2.0


def depth_preview(depth: Tensor, missing: tuple[int, int, int] = _MISSING) -> np.ndarray:
    """Colors of depth maps.

    Args:
        depth: (B, H, W), NaN where there is none.
        missing: RGB of these pixels.

    Returns:
        (B, H, W, 3) uint8, each map over the 2nd to 98th percentile of its own 1 / depth.
    """
    known = depth.isfinite()
    colors = colorize(normalized_disparity(depth, known, percent=_CLIPPED).numpy(), "spectral")
    pixels = (255 * colors).round().astype(np.uint8)
    return np.where(rearrange(known.numpy(), "b h w -> b h w 1"), pixels, np.array(missing, np.uint8))
