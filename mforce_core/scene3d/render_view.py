"""Render a depth map with its picture as another camera would see it.

The quads of a `Surface` are drawn into a z-buffer of several samples per pixel. What a sample sees comes from
the picture, at the exact place that perspective gives; what no quad covers, or one seen from behind, is a hole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from .poses import Pose
from .quads import Projection, Quads, project_quads
from .surface import CORNERS, Surface
from .z_buffer import EMPTY, Triangles, at_once, draw, triangles_of

_NEAREST = 1e-3  # of the median depth: nothing closer is drawn
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
    lens: Tensor | None = None,
) -> View:
    """What a moved camera sees, in a picture of the same size.

    With no movement every valid pixel keeps its color.

    Args:
        surface: of the depth map (H, W), see `build_surface`; all on the device that is to render.
        image: (H, W, 3) colors in [0, 1].
        intrinsics: (3, 3) camera matrix of the picture, normalized by its size.
        samples: along the side of a pixel, 1 or more.
        lens: camera matrix of the view, normalized; None: that of the picture.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}.")
    height, width = surface.valid.shape
    pixels = surface.valid.flatten().nonzero().squeeze(1)
    size = height * samples, width * samples
    empty = image.new_zeros(height, width)
    if not len(pixels):
        return View(torch.zeros_like(image), empty, empty)
    buffer = torch.full((size[0] * size[1],), EMPTY, dtype=torch.int64, device=image.device)
    limit = float(surface.disparity[surface.valid].median()) / _NEAREST
    projection = Projection(intrinsics, intrinsics if lens is None else lens, pose)
    source, count = _Source(len(pixels), surface, image, samples), 0
    for part in pixels.split(at_once(image.device)):
        quads = project_quads(surface, part, projection, size, limit)
        triangles = triangles_of(quads, size)
        near = triangles.plane(quads.near)
        draw(buffer, triangles, near, size, first_number=count)
        source.keep(count, quads, triangles, near)
        count += len(quads.pixel)

    rows = max(1, at_once(image.device) // (size[1] * samples))
    parts = []
    for first in range(0, height, rows):
        last = min(height, first + rows)
        strip = buffer[first * samples * size[1] : last * samples * size[1]]
        parts.append(source.resolve(strip, first * samples * size[1]))
    color, coverage, depth = (torch.cat(maps) for maps in zip(*parts, strict=True))
    return View(color, coverage, depth)


class _Source:
    """What samples see: the picture on the quads of its surface.

    What they need of a quad is kept in columns, because gathers along the last dimension are the fast ones.

    Args:
        count: of quads, at most.
        samples: along the side of a pixel.
    """

    def __init__(self, count: int, surface: Surface, image: Tensor, samples: int) -> None:
        self.samples, self.width = samples, image.shape[1]
        self.colors = image.reshape(-1, 3).T.contiguous()
        self.joined = surface.joined.flatten()
        self.corners = 0.5 * image.new_tensor(CORNERS).T[..., None]
        # Of each triangle the planes of 1 / depth, of perspective's ratio, and of that ratio times the place within
        # the pixel, across and down; and whether it shows its front.
        self.planes = image.new_empty(4, 3, 2 * count)
        self.facing = torch.empty(2 * count, dtype=torch.bool, device=image.device)
        # Of each quad the widths of the ramps of colors; and the first sample's place in its row, its row, the pixel.
        self.ramps = image.new_empty(2, count)
        self.numbers = torch.empty(3, count, dtype=torch.int64, device=image.device)

    def keep(self, first: int, quads: Quads, triangles: Triangles, near: Tensor) -> None:
        """Take quads, the first of which has the number `first`."""
        last = first + len(quads.pixel)
        of_quads, of_triangles = slice(first, last), slice(2 * first, 2 * last)
        ratios = (triangles.plane(quads.ratio * steps) for steps in (1.0, *self.corners))
        for row, plane in zip(self.planes, (near, *ratios), strict=True):
            row[:, of_triangles].unflatten(1, (-1, 2)).copy_(plane.mT)
        self.facing[of_triangles] = triangles.facing.T.flatten()
        for row, length in zip(self.ramps, _extent(quads.x, quads.y, self.samples), strict=True):
            row[of_quads] = _ramp(length, self.samples)
        for row, numbers in zip(self.numbers, (triangles.left, triangles.top, quads.pixel), strict=True):
            row[of_quads] = numbers

    def resolve(self, strip: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Color, coverage and depth of some rows of pixels from the z-buffer's keys; start: number of their first."""
        covered = (strip != EMPTY).nonzero().squeeze(1)
        triangle = strip.index_select(0, covered) & 0xFFFFFFFF
        front = self.facing.index_select(0, triangle)
        if not bool(front.all()):
            covered, triangle = covered[front], triangle[front]
        quad = triangle >> 1
        left, top, pixel = self.numbers.index_select(1, quad)
        place = covered + start
        line = place // (self.width * self.samples)
        right, down = (place - line * (self.width * self.samples) - left).float(), (line - top).float()
        planes = self.planes.flatten(0, 1).index_select(1, triangle).unflatten(0, (4, 3))
        first, step_right, step_down = planes.unbind(1)
        depth, ratio, across, along = first + step_right * right + step_down * down
        color = self._look_up(pixel, across / ratio, along / ratio, self.ramps.index_select(1, quad))
        if len(covered) < len(strip):
            depth = depth.new_zeros(len(strip)).index_copy_(0, covered, depth)
            color = color.new_zeros(3, len(strip)).index_copy_(1, covered, color)
        return _mean_samples(color, depth, self.width, self.samples)

    def _look_up(self, pixel: Tensor, x: Tensor, y: Tensor, ramps: Tensor) -> Tensor:
        """Colors (3, N) of the picture at places (x, y) within pixels, never across a tear."""
        share = [
            ((offset.abs() - 0.5 + ramp / 2) / ramp).clamp(0.0, 0.5) for offset, ramp in zip((x, y), ramps, strict=True)
        ]
        to_right, to_bottom = x > 0, y > 0
        # Corners are numbered clockwise from the top left.
        corner = torch.where(to_bottom, 3 - to_right.int(), to_right.int())
        joined = self.joined.index_select(0, pixel) >> (3 * corner)  # see `Surface`
        shift_x = torch.where(to_right, 1, -1)
        shift_y = torch.where(to_bottom, self.width, -self.width)
        own = self.colors.index_select(1, pixel)
        neighbors = []
        for bit, shift in ((1, shift_x), (2, shift_y), (4, shift_x + shift_y)):
            same = (joined & bit) > 0
            neighbors.append(self.colors.index_select(1, torch.where(same, pixel + shift, pixel)))
        across, down, diagonal = neighbors
        upper = torch.lerp(own, across, share[0])
        lower = torch.lerp(down, diagonal, share[0])
        return torch.lerp(upper, lower, share[1])


def _extent(x: Tensor, y: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Mean length of quads (4, Q) along the picture's rows and columns, in pixels of the view."""
    along = torch.hypot(x[1] - x[0], y[1] - y[0]) + torch.hypot(x[2] - x[3], y[2] - y[3])
    down = torch.hypot(x[3] - x[0], y[3] - y[0]) + torch.hypot(x[2] - x[1], y[2] - y[1])
    return along / (2 * samples), down / (2 * samples)


def _ramp(length: Tensor, samples: int) -> Tensor:
    """Width of the ramp on which the color goes over from a pixel to the next, in pixels of the picture.

    It is as wide as a sample where the view has the picture's own resolution or less: the mean of all samples is then
    the exact mean over a pixel's area, bilinear between pixels and the pixel itself in its middle. Where the view is
    closer the ramp widens, so that pixels do not show as squares.

    Args:
        length: of quads, in pixels of the view.
    """
    coarse = 1.0 / length.clamp(min=1e-3)  # pixels of the picture to one of the view
    ramp = torch.where(coarse >= 1.0, coarse, 1.0 + (samples - 1.0) * (1.0 / coarse - 1.0)) / samples
    return ramp.clamp(max=1.0)


def _mean_samples(color: Tensor, near: Tensor, width: int, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Color (R, W, 3), coverage and depth (R, W) of pixels from samples: color (3, N), and 1 / depth (N,), zero where
    there is no source."""
    # All samples of a pixel one after the other, (samples * samples, R, W).
    near = rearrange(near, "(r down w across) -> (down across) r w", down=samples, w=width, across=samples)
    count = (near > 0).sum(dim=0)
    some = count.clamp(min=1)
    color = rearrange(color, "c (r down w across) -> (down across) r w c", down=samples, w=width, across=samples)
    mean = near.sum(dim=0) / some
    highest = near.amax(dim=0)
    lowest = torch.where(near > 0, near, highest).amin(dim=0)
    mixed = highest - lowest > _SAME_SURFACE * lowest
    mean[mixed] = _of_most(near[:, mixed])
    depth = torch.where(count > 0, 1.0 / mean.clamp(min=1e-30), 0.0)
    return color.sum(dim=0) / some[..., None], count.to(color.dtype) / samples**2, depth


def _of_most(near: Tensor) -> Tensor:
    """Mean 1 / depth (P,) of the surface that most samples (S, P) of a pixel show: never one of near and far."""
    hit = near > 0
    order = near.sort(dim=0, descending=True).values
    middle = order.gather(0, hit.sum(dim=0, keepdim=True) // 2)
    same = hit & ((near - middle).abs() <= _SAME_SURFACE * middle)
    return torch.where(same, near, 0.0).sum(dim=0) / same.sum(dim=0)
