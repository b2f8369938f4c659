"""Depth maps at another size, without surfaces that nobody measured.

Averaging a near and a far pixel makes a depth at which there is nothing. Maps are (B, H, W) float32 with NaN where
there is no depth, before and after; sizes are (height, width).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from .edges import scaled_edge_threshold

Size = tuple[int, int]

#: Pixels next to each other whose depths differ by more than this fraction are not one surface, however coarse the map.
_LARGEST_STEP = 0.25


def resample_depth(depth: Tensor, size: Size) -> Tensor:
    """Maps (B, H, W) at (B, *size), every value being one that was there before.

    Where a side shrinks, a pixel takes the measurement nearest to its center among those inside it, so that a sparse
    map keeps what it has; where a side grows, that of the pixel it lies in.
    """
    rows, columns = depth.shape[1:]
    smaller = _reduce(depth, (min(size[0], rows), min(size[1], columns)))
    return interpolate(smaller[:, None], size, mode="nearest-exact")[:, 0] if smaller.shape[1:] != size else smaller


def enlarge_depth(depth: Tensor, size: Size) -> Tensor:
    """Maps (B, H, W) at (B, *size), smooth on surfaces where they grow and cut sharply between near and far.

    Interpolated in 1 / depth, in which a plane is linear across the picture, so that it stays a plane. Beside a
    missing pixel or a jump of depth (by the threshold that is an edge for a point cloud) the nearest value stands.
    """
    rows, columns = depth.shape[1:]
    smaller = _reduce(depth, (min(size[0], rows), min(size[1], columns)))
    if smaller.shape[1:] == size:
        return smaller
    nearest = interpolate(smaller[:, None], size, mode="nearest-exact")
    known = torch.where(torch.isnan(smaller), 1.0, smaller)[:, None]
    smooth = 1.0 / interpolate(1.0 / known, size, mode="bilinear", align_corners=False)

    rows, columns = smaller.shape[1:]
    broken = surface_breaks(smaller, largest_step((rows, columns)))[:, None]
    edge = interpolate(broken.float(), size, mode="nearest-exact") > 0
    return torch.where(edge, nearest, smooth)[:, 0]


def largest_step(size: Size) -> float:
    """By which fraction the depths of neighbors on one surface may differ, in maps of this size."""
    return min(scaled_edge_threshold(max(size)), _LARGEST_STEP)


def surface_breaks(depth: Tensor, step: float) -> Tensor:
    """(B, H, W) bool: pixels whose 3x3 neighborhood holds a missing pixel or depths that differ by more than ``step``.

    All four pixels between which one is interpolated lie within one such neighborhood.
    """
    missing = torch.isnan(depth)[:, None]
    known = torch.where(missing, torch.ones_like(depth[:, None]), depth[:, None])
    farthest, nearby = max_pool2d(known, 3, 1, 1), -max_pool2d(-known, 3, 1, 1)
    return ((farthest > (1 + step) * nearby) | (max_pool2d(missing.float(), 3, 1, 1) > 0))[:, 0]


def _reduce(depth: Tensor, size: Size) -> Tensor:
    """Maps at a size that is not larger on any side."""
    batch, rows, columns = depth.shape
    if (rows, columns) == size:
        return depth
    y = (torch.arange(rows, device=depth.device) + 0.5) * size[0] / rows
    x = (torch.arange(columns, device=depth.device) + 0.5) * size[1] / columns
    distance = ((y % 1 - 0.5) ** 2)[:, None] + ((x % 1 - 0.5) ** 2)[None]
    order = (-distance).flatten().argsort(stable=True)  # the nearest to a center last
    place = torch.empty_like(order)
    place[order] = torch.arange(rows * columns, device=depth.device)

    target = (y.long()[:, None] * size[1] + x.long()).flatten().expand(batch, -1)
    places = torch.where(torch.isnan(depth).flatten(1), -1, place)
    last = torch.full((batch, size[0] * size[1]), -1, device=depth.device).scatter_reduce(1, target, places, "amax")
    chosen = depth.flatten(1).gather(1, order[last.clamp(min=0)])
    return torch.where(last < 0, torch.nan, chosen).unflatten(1, size)
