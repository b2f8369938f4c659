"""More points between the pixels of a small depth map, so that its surfaces look solid."""

import math

from torch import Tensor
from torch.nn.functional import interpolate

from ..depth.disparity import disparity_of

# Pixels along the side of a picture whose points look like a closed surface in a 3D viewer.
_SOLID_SIDE = 512


def solid_density(side: int) -> int:
    """Points per pixel side that make a picture of this many pixels per side look solid."""
    return math.ceil(_SOLID_SIDE / side)


def densify(depth: Tensor, valid: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Depth (H, W) and its valid pixels at ``factor`` times the size, interpolated between valid pixels only.

    Interpolates 1 / depth, which is linear across the picture of a flat surface, so that the surface stays flat.
    """
    if factor == 1:
        return depth, valid
    size = [factor * side for side in depth.shape]
    near = disparity_of(depth, valid)

    def enlarge(maps: Tensor) -> Tensor:
        return interpolate(maps[None, None], size, mode="bilinear", align_corners=False)[0, 0]

    weight = enlarge(valid.float())
    return weight / enlarge(near).clamp(min=1e-12), weight > 0.999
