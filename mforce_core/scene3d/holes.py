"""Fill the holes of a rendered view with what lies behind them, softly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..depth.disparity import disparity_of

# Pixels around a hole that its colors come from.
_BORDER = 3
# How much nearer than the background across the hole a pixel may be and still count as background.
_NEARER = 1.06
# Least relative change of depth across a gap that makes one end of it the background.
_CHANGE = 0.1


def fill_from_background(color: Tensor, coverage: Tensor, depth: Tensor) -> Tensor:
    """Colors (H, W, 3) with the uncovered part of every pixel interpolated from the background around it.

    Args:
        color: (H, W, 3); coverage: (H, W) in [0, 1]; depth: (H, W), zero where nothing is covered.
    """
    full = coverage >= 1.0
    if full.all() or not full.any():
        return color * coverage[..., None]
    near = disparity_of(depth, full)
    # The farthest of the window, so that the teeth of a jagged near edge do not pass for the two sides of a hole.
    behind = torch.where(full, torch.full_like(near, -torch.inf), -_across(near, full))
    window = 2 * _BORDER + 1
    behind = F.max_pool2d(behind[None, None], (window, 1), stride=1, padding=(_BORDER, 0))
    behind = -F.max_pool2d(behind, (1, window), stride=1, padding=(0, _BORDER))[0, 0]
    source = full & (near <= _NEARER * behind) & behind.isfinite()
    filled = _pull_push(color.movedim(-1, 0)[None], source.to(color.dtype)[None, None])[0].movedim(0, -1)
    return torch.where(full[..., None], color, filled + coverage[..., None] * (color - filled))


def _across(near: Tensor, known: Tensor) -> Tensor:
    """For each hole pixel the lower 1 / depth of the two ends of its row or its column of the hole.

    A hole opens between a near surface and the far one that it used to hide: of the two, the line counts along
    which depth changes most over the shortest gap.
    """
    rows, row_change = _ends(near, known)
    columns, column_change = (values.T for values in _ends(near.T, known.T))
    return torch.where(row_change >= column_change, rows, columns)


def _ends(near: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Along rows: the lower value of the known pixels before and after each pixel (infinite where there are none),
    and by how much they differ over the gap; less than zero with one end only, still less without any."""
    width = near.shape[1]
    index = torch.arange(width, device=near.device).expand_as(near)
    before = torch.where(known, index, -1).cummax(dim=1).values
    after = width - 1 - torch.where(known, width - 1 - index, -1).flip(1).cummax(dim=1).values.flip(1)
    first, last = (near.gather(1, at.clamp(0, width - 1)).clamp(min=1e-30) for at in (before, after))
    no_first, no_last = before < 0, after >= width
    lower = torch.minimum(first.masked_fill(no_first, torch.inf), last.masked_fill(no_last, torch.inf))
    change = ((first / last).log().abs() - _CHANGE).clamp(min=0.0) / (after - before).clamp(min=1)
    change = change.masked_fill(no_first | no_last, -1.0).masked_fill(no_first & no_last, -2.0)
    return lower, change


def _pull_push(color: Tensor, weight: Tensor) -> Tensor:
    """(1, 3, H, W) colors, those of weight zero interpolated from the others; weight: (1, 1, H, W).

    Means over half the size, again and again until every cell has one (pull), fill the gaps of the next larger
    size (push): wide gaps become smoother towards their middle.
    """
    height, width = color.shape[-2:]
    if bool((weight > 0).all()) or max(height, width) == 1:
        return color
    even = (0, width % 2, 0, height % 2)
    amount = F.avg_pool2d(F.pad(weight, even), 2)
    coarse = F.avg_pool2d(F.pad(color * weight, even), 2) / amount.clamp(min=1e-12)
    coarse = _pull_push(coarse, (4.0 * amount).clamp(max=1.0))
    smooth = F.interpolate(coarse, scale_factor=2, mode="bilinear")[..., :height, :width]
    return smooth + weight * (color - smooth)
