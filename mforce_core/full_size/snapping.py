"""Depth edges moved to where the picture has its edges, by a median of like-colored neighbors.

A weighted median takes a value that is there, so that no depth lies between near and far (Ma et al., Constant Time
Weighted Median Filtering for Stereo Matching and Beyond, ICCV 2013). It is taken beside jumps of depth alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

#: Neighborhoods in which depth varies by less are one surface, and stay as they are.
_JUMP = 0.1
#: Difference of color, of 1 from black to white in each channel, at which a neighbor's weight falls to 61%.
_COLOR = 0.1
#: Pixels whose neighborhoods are sorted together, and rows of a picture that are worked on together.
_TOGETHER, _ROWS = 16384, 128


def snap_edges(depth: Tensor, image: Tensor, radius: int) -> Tensor:
    """Depth whose jumps follow those of the picture.

    Args:
        depth: (H, W), NaN where there is none.
        image: (3, H, W) in [0, 1].
        radius: pixels by which an edge may be wrong.

    Returns:
        (H, W); every value is one that was within ``radius`` of its pixel, and missing ones stay missing.
    """
    known = ~depth.isnan()
    largest, smallest = (
        max_pool2d(torch.where(known, sign * depth, -torch.inf)[None], 2 * radius + 1, 1, radius)[0] for sign in (1, -1)
    )
    rows, columns = (known & (largest > (1 + _JUMP) * -smallest)).nonzero(as_tuple=True)
    if not len(rows):
        return depth
    around = torch.arange(-radius, radius + 1, device=depth.device)
    down, along = (offsets.flatten() for offsets in torch.meshgrid(around, around, indexing="ij"))
    nearness = torch.exp(-(down.square() + along.square()) / (2 * radius**2))
    padded = pad(torch.cat((depth[None], image)), (radius,) * 4, value=torch.nan)
    snapped = depth.clone()
    for row, column in zip(rows.split(_TOGETHER), columns.split(_TOGETHER), strict=True):
        there = padded[:, row[:, None] + radius + down, column[:, None] + radius + along]  # (4, n, neighbors)
        unlike = (there[1:] - image[:, row, column][..., None]).square().sum(0)
        weight = (torch.exp(-unlike / (2 * _COLOR**2)) * nearness).nan_to_num(0.0) * ~there[0].isnan()
        values, order = there[0].nan_to_num(torch.inf).sort(dim=1)
        total = weight.gather(1, order).cumsum(dim=1)
        middle = (total < total[:, -1:] / 2).sum(dim=1, keepdim=True).clamp(max=total.shape[1] - 1)
        snapped[row, column] = values.gather(1, middle)[:, 0]
    return snapped


def snap_rows(depth: np.ndarray, picture: np.ndarray, radius: int) -> None:
    """`snap_edges` of a map (H, W) in place, some rows at a time, by its picture (H, W, 3) uint8."""
    before = depth[:0].copy()  # rows above, as they were
    for top in range(0, len(depth), _ROWS):
        bottom = min(top + _ROWS, len(depth))
        part = np.concatenate((before, depth[top : bottom + radius]))
        colors = torch.from_numpy(picture[top - len(before) : bottom + radius].copy()).movedim(-1, 0) / 255
        snapped = snap_edges(torch.from_numpy(part), colors, radius)[len(before) : len(before) + bottom - top]
        before = depth[max(0, bottom - radius) : bottom].copy()
        depth[top:bottom] = snapped.numpy()
