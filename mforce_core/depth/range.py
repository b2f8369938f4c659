"""Values of depth maps stretched to [0, 1] for pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from .disparity import disparity_of

# torch.quantile takes 16 M values at most.
_SAMPLES = 1_000_000


def percentile_range(values: Tensor, known: Tensor, percent: float, *, together: bool = False) -> Tensor:
    """(B, 2) lowest and highest of the known values of each map (B, H, W) without ``percent`` of them at either end.

    ``together`` gives all maps the range of the whole batch; a map without a known value has (0, 0).
    """
    groups = [(values, known)] if together else zip(values, known, strict=True)
    return torch.stack([_range(some[mask], percent) for some, mask in groups]).expand(len(values), 2)


def _range(values: Tensor, percent: float) -> Tensor:
    if not values.numel():
        return values.new_zeros(2)
    if not percent:
        return torch.stack(torch.aminmax(values))
    at = values.new_tensor([percent / 100, 1 - percent / 100])
    return torch.quantile(values[:: 1 + values.numel() // _SAMPLES], at)


def stretch(values: Tensor, known: Tensor, limits: Tensor) -> Tensor:
    """Maps (B, H, W) with ``limits`` (B, 2) at 0 and 1, what is beyond cut off; 0 where not known."""
    low, high = (limits[:, end, None, None] for end in (0, 1))
    # A flat map has no range to stretch.
    span = torch.maximum(high - low, 1e-6 * high.abs()).clamp(min=1e-30)
    scaled = ((values - low) / span).clamp(0.0, 1.0)
    return torch.where(known, scaled, torch.zeros_like(scaled))


def normalized_disparity(depth: Tensor, known: Tensor, *, percent: float = 1.0) -> Tensor:
    """Nearness of every pixel: 1 / depth of each map (B, H, W), stretched to [0, 1]; near is 1, not known is 0.

    Args:
        percent: of a map's values that are cut off at either end, so that stray pixels do not take the contrast away.
    """
    near = disparity_of(depth, known)
    return stretch(near, known, percentile_range(near, known, percent))
