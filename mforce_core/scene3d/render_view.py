"""Render a depth map with its picture as another camera would see it.

The quads of a `Surface` are drawn into a z-buffer of several samples per pixel. What a sample sees comes from
the picture, at the exact place that perspective gives; what no quad covers, or one seen from behind, is a hole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .camera_path import Pose
from .quads import Quads, project_quads
from .surface import CORNERS, Surface
from .z_buffer import EMPTY, PAIRS, rasterize, weights_at_origin

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
    samples: int = 2,
) -> View:
    """What a moved camera sees, in a picture of the same size.

    With no movement every valid pixel keeps its color.

    Args:
        surface: of the depth map (H, W), see `build_surface`; all on the device that is to render.
        image: (H, W, 3) colors in [0, 1].
        intrinsics: (3, 3) camera matrix of the picture and of the view, normalized by its size.
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
    quads = project_quads(surface, pixels, intrinsics, pose, size)
    buffer = rasterize(quads, size)

    rows = max(1, PAIRS // (size[1] * samples))
    parts = []
    for first in range(0, height, rows):
        last = min(height, first + rows)
        strip = buffer[first * samples * size[1] : last * samples * size[1]]
        parts.append(_resolve(strip, first * samples * size[1], quads, surface, image, samples))
    color, coverage, depth = (torch.cat(maps) for maps in zip(*parts, strict=True))
    return View(color, coverage, depth)


def _resolve(
    strip: Tensor, start: int, quads: Quads, surface: Surface, image: Tensor, samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Color, coverage and depth of some rows of pixels from the z-buffer's numbers."""
    width = image.shape[1]
    covered = (strip != EMPTY).nonzero().squeeze(1)
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
        weights = weights_at_origin(x, y, triangle)
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
