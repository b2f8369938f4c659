"""Curves through the square of noise levels, from their start at u = 1 to their end at u = 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .schedule import shift

#: Places u (n,) -> levels (t_rgb, t_depth), each (n,) float32.
Curve = Callable[[Tensor], tuple[Tensor, Tensor]]
Point = tuple[float, float]

#: Places at which a curve is looked up to measure its length.
_DENSE = 2049


def even_places(start: float, steps: int) -> Tensor:
    """``steps + 1`` places from ``start`` down to 0."""
    return torch.linspace(start, 0, steps + 1, dtype=torch.float32)


def hurried(u: Tensor, share: float) -> Tensor:
    """Places of a stream that is done after this share of the steps."""
    if share == 1:
        return u
    place = 1 - (1 - u) / share
    return torch.where(place < 1e-5, 0.0, place)  # rounding leaves no rest of noise at its last step


def polyline(points: Sequence[Point], spacing: tuple[float, float]) -> Curve:
    """Straight lines between points; at u, ``shift(u, *spacing)`` of their length is left to the last."""
    distinct = [points[0], *(after for now, after in pairwise(points) if after != now)]
    corners = torch.tensor(distinct[::-1], dtype=torch.float32)  # (n, 2), from the end
    if len(corners) == 1:
        corners = corners.repeat(2, 1)
    lengths = corners.diff(dim=0).norm(dim=1)
    total = lengths.sum().clamp(min=torch.finfo(torch.float32).tiny)
    knots = torch.cat((torch.zeros(1), (lengths / total).cumsum(0)))

    def curve(u: Tensor) -> tuple[Tensor, Tensor]:
        left = shift(u, *spacing)
        after = torch.searchsorted(knots, left).clamp(1, len(knots) - 1)
        begin, end = knots[after - 1], knots[after]
        within = ((left - begin) / (end - begin).clamp(min=torch.finfo(torch.float32).tiny)).clamp(0, 1)[:, None]
        rgb, depth = (corners[after - 1] + within * (corners[after] - corners[after - 1])).clamp(0, 1).unbind(1)
        return rgb, depth

    return curve


def clipped(curve: Curve, corner: tuple[float, float], spacing: tuple[float, float]) -> Curve:
    """What is left of a curve below ``corner`` (t_rgb, t_depth), where it starts.

    Along the diagonal the steps are those that the whole curve, of as many steps as it needs for this spacing, would
    end with.
    """
    whole = torch.stack(curve(even_places(1.0, _DENSE - 1)), dim=1)
    below = torch.minimum(whole, torch.tensor(corner))
    length, rest = (float(line.diff(dim=0).norm(dim=1).sum()) for line in (whole, below))
    if not rest:
        return polyline([corner], spacing)
    line = polyline([(float(rgb), float(depth)) for rgb, depth in below], (0.0, 1.0))  # u is the share of length left
    begin = place_of(lambda u: (shift(u, *spacing),) * 2, 0, min(rest / length, 1.0))

    def shorter(u: Tensor) -> tuple[Tensor, Tensor]:
        return line((shift(begin * u, *spacing) / shift(torch.tensor(begin), *spacing)).clamp(0, 1))

    return shorter


def place_of(curve: Curve, stream: int, level: float) -> float:
    """The place u at which a stream (0 RGB, 1 depth) passes a level, by bisection; 1 if it never is above it."""
    low, high = 0.0, 1.0
    if float(curve(torch.ones(1))[stream]) <= level:
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        below = float(curve(torch.tensor([middle]))[stream]) <= level
        low, high = (middle, high) if below else (low, middle)
    return low
