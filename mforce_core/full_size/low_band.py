"""What a tile says beyond its details is replaced by the map that it started from."""

from __future__ import annotations

import torch
from torch import Tensor

from ..depth.cells import gather, offsets, spread

#: Ratios to the coarse map that are taken for an edge moved to its place, and not for a bend of a surface: their weight
#: falls to a fourth here (of log depth), and fast beyond.
_EDGE = 0.1
#: Cells of the grid on which ratios are averaged in a standard deviation, and the reach of the average in cells.
_CELLS, _REACH = 2, 6


def hold_low_band(fine: Tensor, coarse: Tensor, sigma: float) -> Tensor:
    """Depth with the details of one map and the low frequencies of another.

    A model that sees a part of a picture knows its edges, and little of how far its surfaces are in the whole. The
    ratio of the maps is smoothed over surfaces, leaving out where they differ as they do beside an edge that is not in
    the same place in both, and taken from the fine map.

    Args:
        fine: (B, H, W) depth, NaN where there is none, in any unit.
        coarse: (B, H, W) likewise; its unit is the result's.
        sigma: pixels, standard deviation of the Gaussian between low and high frequencies.

    Returns:
        (B, H, W); coarse where fine has no depth.
    """
    ratio = (fine / coarse).log()
    middle = ratio.flatten(1).nanmedian(dim=1).values[:, None, None]
    ratio = ratio - middle
    weight = (1 + (ratio / _EDGE).square()).square().reciprocal().nan_to_num(0.0)
    low = _smooth(ratio.nan_to_num(0.0), weight, sigma)
    return torch.where(ratio.isnan(), coarse, coarse * (ratio - low).exp())


def _smooth(values: Tensor, weight: Tensor, sigma: float) -> Tensor:
    """Weighted means of (B, H, W), by a Gaussian on a coarser grid; 0 where nothing has weight."""
    cell = max(1, round(sigma / _CELLS))
    kernel = torch.exp(-(offsets(_REACH, values) * cell / sigma).square() / 2)
    total, weights = gather(torch.stack((values * weight, weight), dim=1), cell, kernel).unbind(1)
    return spread(total / (weights + 1e-3), cell, values.shape[1:])
