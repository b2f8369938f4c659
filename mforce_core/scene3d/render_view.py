"""Render a depth map with its picture as another camera would see it.

The quads of `depth_surface` are drawn into a z-buffer of several samples a pixel. What a sample sees comes from
the picture, at the exact place that perspective gives; what no quad covers, or one seen from behind, is a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .camera_path import Pose
from .surface import CORNERS, Surface

# Pairs of a quad and a sample that are looked at together: enough to keep a device busy, little memory.
_PAIRS = 1 << 19
_EMPTY = torch.iinfo(torch.int64).max
_NEAREST = 1e-3  # of the median depth: nothing closer is drawn
_SLACK = 1e-5  # of a sample's area, so that rounding opens no crack between two quads
_MIXED = 0.5  # pixels of the view by which a mixed pixel may part from the surface that it is mixed with
_SAME_SURFACE = 0.04  # relative spread of depth inside a pixel that is still averaged


@dataclass(frozen=True)
class View:
    """A rendered view.

    color: (H, W, 3) in [0, 1], the mean of the covered samples, zero in holes. coverage: (H, W), the share of a
    pixel's samples that have a source. depth: (H, W) z-depth in the new camera, zero in holes.
    """

    color: Tensor
    coverage: Tensor
    depth: Tensor


def render_view(
    surface: Surface,
    image: Tensor,
    intrinsics: Tensor,
    pose: Pose,
    *,
    view_intrinsics: Tensor | None = None,
    samples: int = 2,
) -> View:
    """What a moved camera sees, in a picture of the same size.

    With no movement every valid pixel keeps its color.

    Args:
        surface: of the depth map (H, W), see `build_surface`; all on the device that is to render.
        image: (H, W, 3) colors in [0, 1].
        intrinsics: (3, 3) camera matrix of the picture, normalized by its size.
        view_intrinsics: the same of the new view; None for the picture's own.
        samples: along the side of a pixel, 1 or more.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}.")
    height, width = surface.valid.shape
    pixels = surface.valid.flatten().nonzero().squeeze(1)
    size = height * samples, width * samples
    empty = image.new_zeros(height, width)
    if not len(pixels):
        return View(torch.zeros_like(image), empty, empty)
    quads = _project(
        surface, pixels, intrinsics, intrinsics if view_intrinsics is None else view_intrinsics, pose, size
    )

    buffer = torch.full((size[0] * size[1],), _EMPTY, dtype=torch.int64, device=pixels.device)
    for chosen, sample in _candidates(quads, size):
        key, hit = _depth_keys(quads, chosen, sample, size[1])
        buffer.scatter_reduce_(0, sample[hit], key[hit], "amin")

    rows = max(1, _PAIRS // (size[1] * samples))
    parts = []
    for first in range(0, height, rows):
        last = min(height, first + rows)
        strip = buffer[first * samples * size[1] : last * samples * size[1]]
        parts.append(_resolve(strip, first * samples * size[1], quads, surface, pixels, image, samples))
    color, coverage, depth = (torch.cat(maps) for maps in zip(*parts, strict=True))
    return View(color, coverage, depth)


@dataclass(frozen=True)
class _Quads:
    """Q projected quads. x, y: (4, Q) corners in samples of the view; near: (4, Q) 1 / depth in the view; ratio:
    (4, Q) depth in the picture over depth in the view, which makes places in the picture linear on screen."""

    x: Tensor
    y: Tensor
    near: Tensor
    ratio: Tensor
    pixel: Tensor


def _project(
    surface: Surface, pixels: Tensor, intrinsics: Tensor, view_intrinsics: Tensor, pose: Pose, size: tuple[int, int]
) -> _Quads:
    height, width = surface.valid.shape
    project = _projection(intrinsics, view_intrinsics, pose)
    row, column = (pixels // width).float(), (pixels % width).float()
    parts = []
    for (step_x, step_y), corner in zip(CORNERS, surface.corners, strict=True):
        x, y = (column + (0.5 + 0.5 * step_x)) / width, (row + (0.5 + 0.5 * step_y)) / height
        parts.append(project(x, y, corner.flatten()[pixels]))
    x, y, near, ratio = (torch.stack(values) for values in zip(*parts, strict=True))
    x, y = x * size[1], y * size[0]

    # Quads that reach behind the camera, or touch it, have no picture.
    limit = surface.disparity[surface.valid].median() / _NEAREST
    seen = ((ratio > 0) & (near < limit)).all(dim=0)
    seen &= (x.amax(0) > 0) & (x.amin(0) < size[1]) & (y.amax(0) > 0) & (y.amin(0) < size[0])
    # A color mixed with the surface in front is right beside it only: elsewhere it is that surface's ghost.
    front = surface.front.flatten()[pixels]
    behind = front.nonzero().squeeze(1)
    middle = (column[behind] + 0.5) / width, (row[behind] + 0.5) / height
    own = project(*middle, surface.disparity.flatten()[pixels[behind]])
    other = project(*middle, front[behind])
    parted = torch.hypot((own[0] - other[0]) * width, (own[1] - other[1]) * height)
    seen[behind] &= parted <= _MIXED
    kept = seen.nonzero().squeeze(1)
    return _Quads(x[:, kept], y[:, kept], near[:, kept], ratio[:, kept], pixels[kept])


def _projection(
    intrinsics: Tensor, view_intrinsics: Tensor, pose: Pose
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """From a place in the picture (x, y normalized by its size) and its disparity to the view.

    The result is the place in the view, 1 / depth there, and depth in the picture over depth in the view.
    """
    (fx, _, cx), (_, fy, cy) = intrinsics.double().cpu().tolist()[:2]
    (view_fx, _, view_cx), (_, view_fy, view_cy) = view_intrinsics.double().cpu().tolist()[:2]
    inverse = pose.rotation.double().cpu().T
    turn, shift = inverse.tolist(), (inverse @ pose.position.double().cpu()).tolist()

    def project(x: Tensor, y: Tensor, disparity: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ray_x, ray_y = (x - cx) / fx, (y - cy) / fy
        # The point is (ray_x, ray_y, 1) / disparity; here all of it is multiplied by the disparity.
        moved_x, moved_y, moved_z = (
            turn[axis][0] * ray_x + turn[axis][1] * ray_y + (turn[axis][2] - disparity * shift[axis])
            for axis in range(3)
        )
        return (
            view_fx * moved_x / moved_z + view_cx,
            view_fy * moved_y / moved_z + view_cy,
            disparity / moved_z,
            1.0 / moved_z,
        )

    return project


def _candidates(quads: _Quads, size: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
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
    limits = torch.arange(_PAIRS, total + _PAIRS, _PAIRS, device=ends.device)
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


def _depth_keys(quads: _Quads, chosen: Tensor, sample: Tensor, width: int) -> tuple[Tensor, Tensor]:
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
        weights = _weights(x, y, triangle)
        depth = sum(weight * near[corner] for corner, weight in weights.items())
        covered = torch.stack(list(weights.values())).amin(0) >= -_SLACK
        better = covered & (depth > best)
        best = torch.where(better, depth, best)
        second = torch.where(better, triangle, second)
    hit = best > 0
    bits = (1.0 / best).view(torch.int32).long()
    return (bits << 32) | (2 * chosen + second), hit


def _weights(x: Tensor, y: Tensor, triangle: int) -> dict[int, Tensor]:
    """Barycentric weights of the origin in one of the two triangles (0, 1, 2) and (0, 2, 3) of quads (4, Q)."""
    a, b, c = (0, 1, 2) if triangle == 0 else (0, 2, 3)
    opposite = {
        first: x[second] * y[third] - y[second] * x[third] for first, second, third in ((a, b, c), (b, c, a), (c, a, b))
    }
    area = opposite[a] + opposite[b] + opposite[c]
    return {corner: value / area for corner, value in opposite.items()}


def _resolve(
    strip: Tensor, start: int, quads: _Quads, surface: Surface, pixels: Tensor, image: Tensor, samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Color, coverage and depth of some rows of pixels from the z-buffer's numbers."""
    width = image.shape[1]
    covered = (strip != _EMPTY).nonzero().squeeze(1)
    number = strip[covered] & 0xFFFFFFFF
    quad, second = number // 2, (number % 2).bool()
    x, y = quads.x[:, quad], quads.y[:, quad]
    extent = _extent(x, y, samples)
    place = covered + start
    x -= (place % (width * samples)).float() + 0.5
    y -= (place // (width * samples)).float() + 0.5
    near, ratio = quads.near[:, quad], quads.ratio[:, quad]

    depth = torch.zeros_like(x[0])
    along = [torch.zeros_like(depth), torch.zeros_like(depth)]
    total = torch.zeros_like(depth)
    front = torch.zeros_like(second)
    for triangle in (0, 1):
        here = second == bool(triangle)
        weights = _weights(x, y, triangle)
        for corner, weight in weights.items():
            weight = torch.where(here, weight, torch.zeros_like(weight))
            depth += weight * near[corner]
            total += weight * ratio[corner]
            for axis in (0, 1):
                along[axis] += weight * ratio[corner] * (0.5 * CORNERS[corner][axis])
        front |= here & _faces_camera(x, y, triangle)
    color = _look_up(image, surface, quads.pixel[quad], [axis / total for axis in along], extent, samples)

    seen, depth, color = covered[front], depth[front], color[front]
    count = len(strip)
    full_depth = depth.new_zeros(count).index_copy(0, seen, depth)
    full_color = color.new_zeros(count, 3).index_copy(0, seen, color)
    return _mean_samples(full_color, full_depth, width, samples)


def _faces_camera(x: Tensor, y: Tensor, triangle: int) -> Tensor:
    a, b, c = (0, 1, 2) if triangle == 0 else (0, 2, 3)
    return (x[b] - x[a]) * (y[c] - y[a]) > (y[b] - y[a]) * (x[c] - x[a])


def _extent(x: Tensor, y: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Mean length of quads (4, Q) along the picture's rows and columns, in pixels of the view."""
    along = torch.hypot(x[1] - x[0], y[1] - y[0]) + torch.hypot(x[2] - x[3], y[2] - y[3])
    down = torch.hypot(x[3] - x[0], y[3] - y[0]) + torch.hypot(x[2] - x[1], y[2] - y[1])
    return along / (2 * samples), down / (2 * samples)


def _look_up(
    image: Tensor, surface: Surface, pixel: Tensor, place: list[Tensor], extent: tuple[Tensor, Tensor], samples: int
) -> Tensor:
    """Colors (N, 3) of the picture at `place` (x, y) within pixels, never across a tear.

    Between two pixels the color goes over on a ramp, as wide as a sample where the view has the picture's own
    resolution or less: the mean of all samples is then the exact mean over a pixel's area, bilinear between
    pixels and the pixel itself in its middle. Where the view is closer the ramp widens, so that pixels do not
    show as squares.
    """
    width = image.shape[1]
    share, step = [], []
    for offset, length in zip(place, extent, strict=True):
        coarse = 1.0 / length.clamp(min=1e-3)  # pixels of the picture to one of the view
        ramp = torch.where(coarse >= 1.0, coarse, 1.0 + (samples - 1.0) * (1.0 / coarse - 1.0)) / samples
        ramp = ramp.clamp(max=1.0)
        share.append(((offset.abs() - 0.5 + ramp / 2) / ramp).clamp(0.0, 0.5)[:, None])
        step.append(torch.where(offset > 0, 1, -1))
    corner = torch.where(step[1] < 0, torch.where(step[0] < 0, 0, 1), torch.where(step[0] < 0, 3, 2))
    joined = surface.joined.flatten(2)
    colors = image.reshape(-1, 3)
    own = colors[pixel]
    neighbors = []
    for index, shift in enumerate((step[0], step[1] * width, step[0] + step[1] * width)):
        same = joined[corner, index, pixel]
        neighbors.append(colors[torch.where(same, pixel + shift, pixel)])
    across, down, diagonal = neighbors
    upper = own + share[0] * (across - own)
    lower = down + share[0] * (diagonal - down)
    return upper + share[1] * (lower - upper)


def _mean_samples(color: Tensor, near: Tensor, width: int, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels from samples; `near` is 1 / depth, zero where there is no source."""

    def by_pixel(values: Tensor) -> Tensor:
        values = values.unflatten(0, (-1, samples, width, samples)).movedim(2, 1)
        return values.flatten(2, 3)

    near, color = by_pixel(near), by_pixel(color)
    hit = near > 0
    count = hit.sum(dim=2)
    color = color.sum(dim=2) / count.clamp(min=1)[..., None]
    # Depth of the surface that most of the pixel shows: never a mean of near and far.
    middle = near.sort(dim=2, descending=True).values.gather(2, (count[..., None] // 2).clamp(max=samples**2 - 1))
    same = hit & ((near - middle).abs() <= _SAME_SURFACE * middle)
    mean = torch.where(same, near, torch.zeros_like(near)).sum(dim=2) / same.sum(dim=2).clamp(min=1)
    depth = torch.where(count > 0, 1.0 / mean.clamp(min=1e-30), torch.zeros_like(mean))
    return color, count.to(color.dtype) / samples**2, depth
