"""Pictures and depth maps of any size, brought to a canvas on the model's grid."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ...mforce_core import placement
from ...mforce_core.placement import KEEP, Placement
from .images import to_rgb
from .joint_latent import check_size


def place(source: Tensor, width: int, height: int, fit: str) -> Placement:
    """How pictures or maps (B, H, W, ...) come to ``height`` x ``width``.

    Raises:
        ValueError: a size that is off the grid.
    """
    if fit != KEEP:
        check_size(width, height)
    return placement.place((source.shape[1], source.shape[2]), (height, width), fit)


def fit_image(image: Tensor, placement: Placement) -> Tensor:
    """IMAGE (B, H, W, C) to RGB (B, H', W', 3) in [0, 1]; transparent parts become white, bars are black."""
    placed = placement.place_image(rearrange(to_rgb(image), "b h w c -> b c h w").float())
    return rearrange(placed, "b c h w -> b h w c")


def fit_depth(depth: Tensor, valid: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
    """Depth (B, H, W) and its valid pixels on the canvas; every value is one that was measured, none lies on bars."""
    placed = placement.place_depth(torch.where(valid, depth, torch.nan))
    inside = torch.isfinite(placed)
    return torch.where(inside, placed, torch.zeros_like(placed)), inside
