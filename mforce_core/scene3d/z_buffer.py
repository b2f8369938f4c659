"""A z-buffer of quads: which quad, and which of its triangles, is nearest at every sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .quads import Quads

EMPTY = torch.iinfo(torch.int64).max
_SLACK = 1e-5  # of a sample's area, so that rounding opens no crack between two quads
# Quads that cover up to this many samples along a side, and are this many of one size, are looked at sample by sample.
_SMALL = 8
_MANY = 1 << 9

Steps = Tensor | int


@dataclass(frozen=True)
class Triangles:
    """The two triangles of each quad, corners 0 1 2 and 0 2 3, as planes over the samples of its bounding box.

    A plane is (3, 2, Q): of each triangle the value at the box's first sample, the change to the next sample on the
    right, and that to the next one below.

    left, top: (Q,) int64, the first sample. across, down: (Q,) int64, the size of the box within the view. second,
    third: planes of the barycentric weights of the second and the third corner. facing: (2, Q) bool, whether a
    triangle shows its front.
    """

    left: Tensor
    top: Tensor
    across: Tensor
    down: Tensor
    second: Tensor
    third: Tensor
    facing: Tensor

    def plane(self, corners: Tensor) -> Tensor:
        """The plane of a value that is linear on each triangle, given at the corners (4, Q)."""
        first = corners[:1].expand(2, -1)
        plane = (corners[1:3] - first) * self.second + (corners[2:4] - first) * self.third
        plane[0] += first
        return plane


def triangles_of(quads: Quads, size: tuple[int, int]) -> Triangles:
    """The triangles of quads in a view of this size, in samples."""
    left = (quads.x.amin(0) - (0.5 + _SLACK)).ceil().clamp(min=0)
    right = (quads.x.amax(0) - (0.5 - _SLACK)).floor().clamp(max=size[1] - 1)
    top = (quads.y.amin(0) - (0.5 + _SLACK)).ceil().clamp(min=0)
    bottom = (quads.y.amax(0) - (0.5 - _SLACK)).floor().clamp(max=size[0] - 1)
    # From the first corner: the second and the third of either triangle.
    x, y = quads.x[:1] - (left + 0.5), quads.y[:1] - (top + 0.5)
    second_x, second_y = quads.x[1:3] - quads.x[:1], quads.y[1:3] - quads.y[:1]
    third_x, third_y = quads.x[2:4] - quads.x[:1], quads.y[2:4] - quads.y[:1]
    area = second_x * third_y - second_y * third_x
    inverse = 1.0 / area
    slopes = torch.stack([third_y, -third_x]) * inverse, torch.stack([-second_y, second_x]) * inverse
    second, third = (torch.cat([-(slope[0] * x + slope[1] * y)[None], slope]) for slope in slopes)
    across, down = ((last - first + 1).clamp(min=0).long() for first, last in ((left, right), (top, bottom)))
    return Triangles(left.long(), top.long(), across, down, second, third, area > 0)


def at_once(device: torch.device) -> int:
    """Quads or samples to look at together: what the caches of a CPU hold, and what keeps another device busy."""
    return 1 << 16 if device.type == "cpu" else 1 << 21


def drawing_device(device: torch.device) -> torch.device:
    """A device that draws, for work on ``device``: not every GPU has the 64-bit minimum that z-buffers need (Apple's do
    not), so only those draw that are known to."""
    return device if device.type in ("cpu", "cuda") else torch.device("cpu")


def draw(buffer: Tensor, triangles: Triangles, near: Tensor, size: tuple[int, int], *, first_number: int) -> None:
    """Draw quads into a z-buffer.

    Args:
        buffer: (height * width,) int64 for every sample of a view: `EMPTY`, or the nearest quad's key. The lower 32
            bits of a key are twice the quad's number, plus one for its second triangle.
        near: plane of 1 / depth.
        size: (height, width) of the view in samples.
        first_number: number of the first of the quads.
    """
    planes = torch.stack([triangles.second, triangles.third, near]).flatten(0, 2)
    origin = triangles.top * size[1] + triangles.left
    for chosen, steps in _candidates(triangles):
        # Gathered by row: much faster than a gather of more dimensions.
        own = planes.index_select(1, chosen).unflatten(0, (3, 3, 2))
        first = origin.index_select(0, chosen)
        for right, down in steps:
            keys, hit = _depth_keys(own, chosen + first_number, right, down)
            buffer.scatter_reduce_(0, first + (right + size[1] * down), torch.where(hit, keys, EMPTY), "amin")


def _candidates(triangles: Triangles) -> Iterator[tuple[Tensor, Sequence[tuple[Steps, Steps]]]]:
    """Some quads at a time, and the samples inside their bounding boxes as steps to the right and down from the first.

    Quads of one size take the same steps: nothing needs to be looked up for each of their samples.
    """
    small = (triangles.across <= _SMALL) & (triangles.down <= _SMALL)
    number = torch.where(small, triangles.across * (_SMALL + 1) + triangles.down, (_SMALL + 1) ** 2)
    empty = (triangles.across == 0) | (triangles.down == 0)
    order = number.masked_fill(empty, -1).argsort(stable=True)
    counts = torch.bincount(number.masked_fill(empty, -1) + 1, minlength=(_SMALL + 1) ** 2 + 2).tolist()
    ends = torch.tensor(counts).cumsum(0).tolist()
    others = [order[ends[-2] :]]
    for index, (first, last) in enumerate(pairwise(ends[:-1])):
        group = order[first:last]
        if len(group) < _MANY:
            others.append(group)
            continue
        across, down = divmod(index, _SMALL + 1)
        steps = [(right, below) for below in range(down) for right in range(across)]
        yield group, steps
    for part, right, below in _pairs(triangles, torch.cat(others)):
        yield part, [(right, below)]


def _pairs(triangles: Triangles, quads: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The same for quads of any size, one for each of its samples."""
    across = triangles.across[quads]
    count = across * triangles.down[quads]
    ends = count.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    limit = at_once(ends.device)
    limits = torch.arange(limit, total + limit, limit, device=ends.device)
    cuts = [0, *torch.searchsorted(ends, limits, right=True).tolist(), len(ends)]
    for first, last in pairwise(cuts):
        # One quad alone may be larger than the limit.
        if last <= first:
            continue
        part = torch.arange(first, last, device=ends.device)
        chosen = part.repeat_interleave(count[first:last])
        start = ends[chosen] - count[chosen] - (ends[first] - count[first])
        inside = torch.arange(len(chosen), device=ends.device) - start
        yield quads[chosen], inside % across[chosen], inside // across[chosen]


def _depth_keys(planes: Tensor, number: Tensor, right: Steps, down: Steps) -> tuple[Tensor, Tensor]:
    """For each quad and sample what the z-buffer takes the least of, and whether the quad covers the sample at all.

    The depth's bits, which order like positive floats do, above the number of the quad and its triangle: of two
    equally near quads always the same one wins.
    """
    start, step_right, step_down = planes.unbind(1)
    second, third, near = start + step_right * right + step_down * down
    covered = torch.minimum(torch.minimum(second, third), 1.0 - second - third) >= -_SLACK
    depth = torch.where(covered, near, 0.0)
    best = depth.amax(0)
    bits = (1.0 / best).view(torch.int32).long()
    return (bits << 32) | (2 * number + (depth[1] > depth[0])), best > 0
