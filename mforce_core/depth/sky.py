"""The sky in a depth map: what is so far away that its depth says nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

MISSING, FAR_AWAY = HANDLINGS = ("missing", "far away")


def find_sky(depth: Tensor, valid: Tensor, *, far: float, sure: Tensor | None = None) -> Tensor:
    """(H, W) bool: pixels beyond `far` median depths, and those that are surely sky.

    The median is that of the pixels that are not surely sky. Single near pixels within the sky belong to it.

    Args:
        depth: (H, W), with valid (H, W) bool.
        far: in median depths; 0 finds none by depth.
        sure: (H, W) bool, sky by other evidence: a segmentation, or a map of what a model is unsure of.
    """
    sky = torch.zeros_like(valid) if sure is None else sure.clone()
    rest = depth[valid & ~sky]
    if far > 0 and len(rest):
        sky |= valid & (depth > far * rest.median())
    return _closed(sky)


def handle_sky(depth: Tensor, valid: Tensor, sky: Tensor, how: str, distance: float) -> tuple[Tensor, Tensor]:
    """Depth (H, W) and valid pixels with the sky missing, or on a backdrop.

    Args:
        how: one of `HANDLINGS`.
        distance: of the backdrop, in depths of the farthest pixel that is not sky.
    """
    if how == MISSING:
        return depth, valid & ~sky
    rest = depth[valid & ~sky]
    farthest = rest.max() if len(rest) else depth.new_tensor(1.0)
    return torch.where(sky, farthest * distance, depth), valid | sky


def _closed(sky: Tensor) -> Tensor:
    """Without holes of one pixel."""
    grown = max_pool2d(sky.float()[None, None], 3, 1, 1)
    return sky | (-max_pool2d(-grown, 3, 1, 1)[0, 0] > 0)
