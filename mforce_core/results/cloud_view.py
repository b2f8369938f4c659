"""Draw a point cloud from a viewpoint: square splats, the nearest one in front."""

from __future__ import annotations

import math

import numpy as np

_BACKGROUND = 24


def draw_cloud(
    points: np.ndarray, colors: np.ndarray, *, fov: float, size: tuple[int, int], yaw: float, pitch: float
) -> np.ndarray:
    """Render points as seen by a camera that has orbited around the cloud's median.

    Args:
        points: (M, 3) in glTF axes, as the original camera at the origin sees them.
        colors: (M, 3) uint8.
        fov: horizontal field of view in degrees.
        size: (width, height) of the picture in pixels.
        yaw, pitch: of the orbit in degrees; positive moves the camera to the right and up.

    Returns:
        (height, width, 3) uint8.
    """
    width, height = size
    pivot = np.median(points, axis=0)
    # Farther back than the original camera, so that the turned cloud still fits.
    seen = (points - pivot) @ _orbit(yaw, pitch).T + pivot * [1, 1, 1.25]
    distance = -seen[:, 2]
    in_front = distance > 0.05 * np.median(np.abs(distance))
    seen, distance, colors = seen[in_front], distance[in_front], colors[in_front]
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    x = np.floor(width / 2 + focal * seen[:, 0] / distance).astype(int)
    y = np.floor(height / 2 - focal * seen[:, 1] / distance).astype(int)

    # Splats a little larger than the spacing of the points, so that surfaces close.
    reach = math.ceil(1.2 * math.sqrt(width * height / max(1, len(points))))
    offsets = np.arange(reach) - reach // 2
    dy, dx = (grid.ravel() for grid in np.meshgrid(offsets, offsets, indexing="ij"))
    order = np.argsort(-distance, kind="stable")
    rows, columns = (y[order, None] + dy).ravel(), (x[order, None] + dx).ravel()
    shades = np.repeat(colors[order], len(dx), axis=0)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    picture = np.full((height, width, 3), _BACKGROUND, dtype=np.uint8)
    # From far to near: the last one written to a pixel stays.
    picture[rows[inside], columns[inside]] = shades[inside]
    return picture


def _orbit(yaw: float, pitch: float) -> np.ndarray:
    """Rotation of the world that is a move of the camera by yaw to the right and by pitch up."""
    a, b = -math.radians(yaw), math.radians(pitch)
    turn = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    tip = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    return tip @ turn
