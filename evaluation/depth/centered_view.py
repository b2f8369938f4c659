"""MoGe's view of a picture: turned so that its middle lies on the optical axis, and cut to a fixed size and shape.

The arithmetic follows ``EvalDataLoaderPipeline._process_instance`` of microsoft/MoGe in its dtypes, so that the same
pixels of the depth map are picked; pictures are interpolated in float here and in steps of 1/32 pixel by OpenCV there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import grid_sample

from .samples import middles_as_numpy, nearest_valid, pick


class View(NamedTuple):
    """Picture (h, w, 3) uint8, depth (h, w) float32, mask (h, w) bool and normalized intrinsics (3, 3) of a view."""

    image: np.ndarray
    depth: np.ndarray
    mask: np.ndarray
    intrinsics: np.ndarray


def centered_view(
    image: np.ndarray, depth: np.ndarray, mask: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> View:
    """The largest centered view of the wanted proportions that lies inside a picture.

    Args:
        image: (H, W, 3) uint8.
        depth: (H, W) z-depth, read where the mask is set.
        mask: (H, W) bool.
        intrinsics: (3, 3) float32, normalized by width and height.
        size: (h, w) of the view.
    """
    geometry = _geometry(intrinsics.tobytes(), size)
    height, width = geometry.shape
    rows, columns, found = nearest_valid(mask, (height, width), middles_as_numpy)
    filled = np.where(mask, depth, np.float32(1))
    distance = pick(filled, rows, columns) * geometry.rays
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    picked = np.where(geometry.inside, distance.take(geometry.nearest), 0) / geometry.view_rays
    known = geometry.inside & found.take(geometry.nearest)
    return View(_interpolate(small, geometry.grid), picked.astype(np.float32), known, geometry.target.copy())


class _Geometry(NamedTuple):
    """Where the pixels of a view come from, the same for all pictures of a camera.

    ``shape`` (H, W) to which a picture is brought first, and its ``rays`` (H, W), distances of points at depth 1;
    ``view_rays`` (h, w) those of the view; ``nearest`` (h, w) index of the nearest pixel, ``inside`` (h, w) whether it
    lies in the picture; ``grid`` (h, w, 2) as PyTorch's `grid_sample` takes it; ``target`` (3, 3) its intrinsics.
    """

    shape: tuple[int, int]
    rays: np.ndarray
    view_rays: np.ndarray
    nearest: np.ndarray
    inside: np.ndarray
    grid: np.ndarray
    target: np.ndarray


@lru_cache(maxsize=1)
def _geometry(camera: bytes, size: tuple[int, int]) -> _Geometry:
    """Of the bytes of (3, 3) float32 intrinsics, and the size of the view; kept for the next picture of the camera."""
    intrinsics = np.frombuffer(camera, np.float32).reshape(3, 3)
    turn = _turn_to_axis(np.linalg.inv(intrinsics) @ np.array([0.5, 0.5, 1.0], np.float32))
    view_width, view_height = _field_of_view(intrinsics, turn, size[1] / size[0])
    target = np.array([[1 / view_width, 0, 0.5], [0, 1 / view_height, 0.5], [0, 0, 1]], np.float32)
    # First to about the pixels of the view, then the projection.
    height, width = (
        int(abs(1 / focal) / (view / pixels))
        for focal, view, pixels in ((intrinsics[1, 1], view_height, size[0]), (intrinsics[0, 0], view_width, size[1]))
    )
    across, down, away = _transformed(size, intrinsics @ np.linalg.inv(turn) @ np.linalg.inv(target))
    x, y = (
        (at / (away + np.float32(1e-12))) * side - np.float32(0.5) for at, side in ((across, width), (down, height))
    )
    column, row = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    nearest = row.clip(0, height - 1) * width + column.clip(0, width - 1)
    grid = np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    rays, view_rays = _ray_lengths((height, width), intrinsics), _ray_lengths(size, target)
    return _Geometry((height, width), rays, view_rays, nearest, inside, grid, target)


def _turn_to_axis(direction: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) float32 that brings a direction onto the optical axis, by the shortest way."""
    direction = direction / np.linalg.norm(direction)
    a, b, c = np.cross(direction, np.array([0, 0, 1], np.float32))
    skew = np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]], np.float32)
    return (np.eye(3, dtype=np.float32) + skew + skew @ skew / (1 + direction[2])).astype(np.float32)


def _field_of_view(intrinsics: np.ndarray, turn: np.ndarray, aspect: float) -> tuple[float, float]:
    """Width and height, at depth 1, of the largest view of an aspect that the turned picture holds."""
    width, height = abs(1.0 / intrinsics[0, 0]), abs(1.0 / intrinsics[1, 1])
    view_width = min(width, height * aspect)
    view_height = view_width / aspect
    frame = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 1], [1, 0, 1]], np.float32)
    corners = frame @ (np.linalg.inv(intrinsics).T @ turn.T)
    corners = corners[:, :2] / corners[:, 2:]
    for start, end in zip(np.roll(corners, 1, 0), corners, strict=True):
        side = end - start
        for diagonal in (np.array([aspect, 1.0]), np.array([aspect, -1.0])):
            # Where a diagonal of the view meets a side of the picture: diagonal * s = start + side * t.
            across = diagonal[0] * side[1] - diagonal[1] * side[0]
            if abs(across) < 1e-12:
                continue
            crossing = np.abs(diagonal * (start[0] * side[1] - start[1] * side[0]) / across)
            width, height = min(width, 2 * crossing[0]), min(height, 2 * crossing[1])
    return min(view_width, width), min(view_height, height)


def _transformed(size: tuple[int, int], matrix: np.ndarray) -> list[np.ndarray]:
    """The three coordinates (h, w) float32 of ``matrix @ (x, y, 1)``, x and y in units of the picture's size."""
    x, y = middles_as_numpy(size[1]), middles_as_numpy(size[0])[:, None]
    return [x * row[0] + y * row[1] + row[2] for row in matrix.astype(np.float32)]


def _ray_lengths(size: tuple[int, int], intrinsics: np.ndarray) -> np.ndarray:
    """(h, w) float32: distance from the camera of a point at depth 1."""
    a, b, c = _transformed(size, np.linalg.inv(intrinsics))
    return np.sqrt(a * a + b * b + c * c)


def _interpolate(image: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Bilinear samples (h, w, 3) uint8; black outside."""
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
    found = grid_sample(pixels[None], torch.from_numpy(grid)[None], align_corners=False)[0]
    return found.round_().byte().permute(1, 2, 0).contiguous().numpy()
