"""A z-buffer of quads: which quad, and which of its triangles, is nearest at every sample."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from .quads import Quads

# Pairs of a quad and a sample that are looked at together: enough to keep a device busy, little memory.
PAIRS = 1 << 19
EMPTY = torch.iinfo(torch.int64).max
_SLACK = 1e-5  # of a sample's area, so that rounding opens no crack between two quads


def rasterize(quads: Quads, size: tuple[int, int]) -> Tensor:
    """(height * width,) int64 for every sample of a view of this size: `EMPTY`, or the nearest quad's key.

    The lower 32 bits of a key are twice the quad's number, plus one for its second triangle.
    """
    buffer = torch.full((size[0] * size[1],), EMPTY, dtype=torch.int64, device=quads.pixel.device)
    for chosen, sample in _candidates(quads, size):
        key, hit = _depth_keys(quads, chosen, sample, size[1])
        buffer.scatter_reduce_(0, sample[hit], key[hit], "amin")
    return buffer


def _candidates(quads: Quads, size: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a quad and a sample inside its bounding box, some at a time."""
    left = (quads.x.amin(0) - (0.5 + _SLACK)).ceil().clamp(min=0)
    right = (quads.x.amax(0) - (0.5 - _SLACK)).floor().clamp(max=size[1] - 1)
    top = (quads.y.amin(0) - (0.5 + _SLACK)).ceil().clamp(min=0)
    bottom = (quads.y.amax(0) - (0.5 - _SLACK)).floor().clamp(max=size[0] - 1)
    across = (right - left + 1).clamp(min=0).long()
    count = across * (bottom - top + 1).clamp(min=0).long()
    origin = top.long() * size[1] + left.long()
    ends = count.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    limits = torch.arange(PAIRS, total + PAIRS, PAIRS, device=ends.device)
    cuts = [0, *torch.searchsorted(ends, limits, right=True).tolist(), len(ends)]
    for first, last in pairwise(cuts):
        # One quad alone may be larger than the limit.
        if last <= first:
            continue
        part = torch.arange(first, last, device=ends.device)
        chosen = part.repeat_interleave(count[first:last])
        inside = torch.arange(len(chosen), device=ends.device) - (
            ends[chosen] - count[chosen] - (ends[first] - count[first])
        )
        yield chosen, origin[chosen] + inside // across[chosen] * size[1] + inside % across[chosen]


def _depth_keys(quads: Quads, chosen: Tensor, sample: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """For each pair what the z-buffer takes the least of, and whether the quad covers the sample at all.

    The depth's bits, which order like positive floats do, above the number of the quad and its triangle: of two
    equally near quads always the same one wins.
    """
    x, y, near = quads.x[:, chosen], quads.y[:, chosen], quads.near[:, chosen]
    x -= (sample % width).float() + 0.5
    y -= (sample // width).float() + 0.5
    best = torch.zeros_like(x[0])
    second = torch.zeros_like(chosen)
    for triangle in (0, 1):
        weights = weights_at_origin(x, y, triangle)
        depth = sum(weight * near[corner] for corner, weight in weights.items())
        covered = torch.stack(list(weights.values())).amin(0) >= -_SLACK
        better = covered & (depth > best)
        best = torch.where(better, depth, best)
        second = torch.where(better, triangle, second)
    hit = best > 0
    bits = (1.0 / best).view(torch.int32).long()
    return (bits << 32) | (2 * chosen + second), hit


def weights_at_origin(x: Tensor, y: Tensor, triangle: int) -> dict[int, Tensor]:
    """Barycentric weights of the origin in one of the two triangles (0, 1, 2) and (0, 2, 3) of quads (4, Q)."""
    a, b, c = (0, 1, 2) if triangle == 0 else (0, 2, 3)
    opposite = {
        first: x[second] * y[third] - y[second] * x[third] for first, second, third in ((a, b, c), (b, c, a), (c, a, b))
    }
    area = opposite[a] + opposite[b] + opposite[c]
    return {corner: value / area for corner, value in opposite.items()}
