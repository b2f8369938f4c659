"""Depth as pictures to look at or to condition on: in gray, in core's turbo, in the other color maps.

Relies on: ``comfy.ldm.colormap.turbo``, so that our colors are those of core's own depth nodes.
"""

from __future__ import annotations

import torch
from comfy.ldm.colormap import turbo
from torch import Tensor

from ...mforce_core.depth.colormaps import COLORMAPS, colorize
from ...mforce_core.depth.range import normalized_disparity, percentile_range

GRAY, TURBO = "gray", "turbo"
COLORS = (GRAY, TURBO, *COLORMAPS)


def preview(maps: Tensor, valid: Tensor) -> Tensor:
    """Depth (B, H, W) in colors (B, H, W, 3): near is red, invalid is black."""
    return turbo(normalized_disparity(maps, valid)) * valid[..., None]


def in_colors(values: Tensor, colors: str) -> Tensor:
    """(..., 3) of values in [0, 1]; ``colors`` is one of `COLORS`."""
    if colors == GRAY:
        return values[..., None].expand(*values.shape, 3)
    if colors == TURBO:
        return turbo(values)
    return torch.from_numpy(colorize(values.numpy(), colors))


def nearness(distance: Tensor, inverse: bool) -> Tensor:
    """Larger is nearer: 1 / depth if ``inverse``, else depth with the sign changed."""
    return 1.0 / distance if inverse else -distance


def nearness_range(
    maps: Tensor, valid: Tensor, inverse: bool, near: float, far: float, clip_percent: float, together: bool
) -> Tensor:
    """The nearness (B, 2) of the far and the near end of each map's (B, H, W) picture.

    Args:
        near, far: depth at the ends; 0 leaves an end to the map.
        clip_percent: how many percent of the pixels such an end may cut off.
        together: one range for the whole batch.

    Raises:
        ValueError: the ends are in the wrong order, or a map lies wholly outside them.
    """
    if near and far and near >= far:
        raise ValueError(f"near is {near:g} and far is {far:g}; far must be the larger one, or 0.")
    values = torch.where(valid, nearness(maps, inverse), torch.zeros_like(maps))
    limits = percentile_range(values, valid, clip_percent, together=together).clone()
    for end, distance in enumerate((far, near)):
        if distance:
            limits[:, end] = nearness(torch.tensor(distance), inverse)
    outside = valid.any(2).any(1) & (limits[:, 0] >= limits[:, 1])
    if (near or far) and outside.any():
        index = int(outside.nonzero()[0])
        nearest, farthest = torch.aminmax(maps[index][valid[index]])
        raise ValueError(
            f"depth map {index} ranges from {nearest:g} to {farthest:g}, which is wholly beyond near or far; choose"
            " them within that range, or set both to 0."
        )
    return limits
