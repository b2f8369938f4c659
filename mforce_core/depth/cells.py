"""Maps averaged smoothly over their surroundings, by a Gaussian on a coarser grid of cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad


def gather(maps: Tensor, cell: int, kernel: Tensor) -> Tensor:
    """Means of cells, and of cells around them.

    Args:
        maps: (B, C, H, W); beyond their edges they count as 0.
        cell: side of a cell in pixels.
        kernel: (2 reach + 1,) weights of the neighboring cells in a row or column, of any sum.

    Returns:
        (B, C, h, w) with h = ceil(H / cell) and w = ceil(W / cell).
    """
    height, width = maps.shape[2:]
    channels, reach = maps.shape[1], len(kernel) // 2
    pooled = avg_pool2d(pad(maps, (0, -width % cell, 0, -height % cell)), cell)
    row = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    return conv2d(conv2d(pad(pooled, (reach,) * 4), row, groups=channels), row.transpose(2, 3), groups=channels)


def spread(means: Tensor, cell: int, size: Sequence[int]) -> Tensor:
    """Means of cells (B, h, w), interpolated at the pixels of a picture of ``size`` (H, W)."""
    whole = (cell * means.shape[1], cell * means.shape[2])
    return interpolate(means[:, None], whole, mode="bilinear", align_corners=False)[:, 0, : size[0], : size[1]]


def offsets(reach: int, like: Tensor) -> Tensor:
    """How many cells away the neighbors of a kernel for `gather` are, (2 reach + 1,)."""
    return torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype)
