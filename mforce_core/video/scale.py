"""The scale between two depth maps of one thing, whatever part of them disagrees."""

from __future__ import annotations

import torch
from torch import Tensor

#: Weights of less than this share of the pixels say nothing about the whole.
_LEAST_WEIGHT = 0.02
#: Pixels that a median is taken over, at most.
_SAMPLES = 1 << 16


def scale_between(one: Tensor, other: Tensor, weight: Tensor) -> float | None:
    """The factor that brings a depth map to another: the weighted median of ``other / one``.

    Up to half of the weight may lie on pixels that moved, without a trace in the result.

    Args:
        one, other: (H, W), NaN where there is no depth.
        weight: (H, W) from 0 to 1.

    Returns:
        The factor; None where too few pixels have weight and depth in both.
    """
    known = weight.where(one.isfinite() & other.isfinite(), 0.0).flatten()
    if known.mean() < _LEAST_WEIGHT:
        return None
    chosen = known.nonzero()[:, 0]
    chosen = chosen[:: 1 + len(chosen) // _SAMPLES]
    ratio = other.flatten()[chosen].double() / one.flatten()[chosen].double()
    ordered, order = ratio.sort()
    reached = known[chosen][order].double().cumsum(0)
    return float(ordered[torch.searchsorted(reached, reached[-1] / 2)])


def blend(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Geometric mean of two depth maps (H, W), ``share`` of it the other's; where one has no depth, the other's."""
    mixed = torch.lerp(one.log(), other.log(), share).exp()
    return torch.where(one.isnan(), other, torch.where(other.isnan(), one, mixed))
