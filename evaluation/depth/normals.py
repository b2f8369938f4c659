"""Errors of the surface normals that depth implies, in degrees."""

from __future__ import annotations

import numpy as np

#: Names of the measures of `normal_errors`.
NORMAL_MEASURES = ("normal_mean", "normal_median", "normal_11.25", "normal_22.5", "normal_30")


def normals_from_depth(depth: np.ndarray, mask: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals by central differences of the unprojected points, in camera axes (x right, y down, z forward).

    Args:
        depth: (H, W) z-depth.
        mask: (H, W) bool, where it is known.
        intrinsics: (3, 3) normalized by width and height; pixel middles lie at half pixels.

    Returns:
        (H - 2, W - 2, 3) normals that face the camera, and where all four neighbors are known, bool.
    """
    height, width = depth.shape
    x = ((np.arange(width) + 0.5) / width - intrinsics[0, 2]) / intrinsics[0, 0]
    y = ((np.arange(height) + 0.5) / height - intrinsics[1, 2]) / intrinsics[1, 1]
    points = np.stack([depth * x, depth * y[:, None], depth], -1)
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    normals = np.cross(down, across)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    known = mask[1:-1, 2:] & mask[1:-1, :-2] & mask[2:, 1:-1] & mask[:-2, 1:-1] & (length[..., 0] > 0)
    return normals / np.maximum(length, np.finfo(np.float64).tiny), known


def normal_errors(aligned: np.ndarray, truth: np.ndarray, mask: np.ndarray, intrinsics: np.ndarray) -> dict[str, float]:
    """Mean and median angle between the normals of two depth maps, and shares of the pixels below some angles.

    Args:
        aligned, truth: (H, W).
        mask: (H, W) bool.
        intrinsics: (3, 3), see `normals_from_depth`.

    Returns:
        `NORMAL_MEASURES` by name; empty where no pixel has four known neighbors.
    """
    mask = mask & np.isfinite(aligned)
    found, known = normals_from_depth(np.where(mask, aligned, 1), mask, intrinsics)
    expected, also = normals_from_depth(np.where(mask, truth, 1), mask, intrinsics)
    used = known & also
    if not used.any():
        return {}
    angles = np.degrees(np.arccos(np.clip((found[used] * expected[used]).sum(-1), -1, 1)))
    shares = [float(np.mean(angles < limit)) for limit in (11.25, 22.5, 30)]
    return dict(zip(NORMAL_MEASURES, [float(angles.mean()), float(np.median(angles)), *shares], strict=True))
