"""Thin a point cloud: one mean point for each cell of a grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .point_cloud import PointCloud

# Cells along a side that still have a number of their own in 63 bits.
_MOST_CELLS = 1 << 20


def extent(cloud: PointCloud) -> float:
    """The longest side of the cloud's bounding box."""
    return float((cloud.points.amax(0) - cloud.points.amin(0)).max())


def thin(cloud: PointCloud, size: float) -> PointCloud:
    """One point for each occupied cube of side `size`: the mean position, color and normal of those in it.

    The result is in the order of the cubes and belongs to no pixels.

    Raises:
        ValueError: the size is not positive, or so small that the cubes can no longer be counted.
    """
    if not size > 0.0:
        raise ValueError(f"the voxel size must be more than 0, got {size}.")
    if extent(cloud) / size > _MOST_CELLS:
        raise ValueError(f"a voxel size of {size:g} is too small for a cloud that is {extent(cloud):g} wide.")
    low = cloud.points.amin(0)
    cell = ((cloud.points - low) / size).floor().long()
    number = (cell[:, 0] * (_MOST_CELLS + 1) + cell[:, 1]) * (_MOST_CELLS + 1) + cell[:, 2]
    _, group, count = number.unique(return_inverse=True, return_counts=True)

    def mean(values: Tensor) -> Tensor:
        # Sums relative to the cloud's corner, in float64 on the CPU, where the order of the sum is always the same.
        total = torch.zeros(len(count), 3, dtype=torch.float64).index_add_(0, group.cpu(), values.double().cpu())
        return (total / count.cpu()[:, None]).to(cloud.points)

    points = mean(cloud.points - low) + low
    colors = None if cloud.colors is None else mean(cloud.colors).round().to(torch.uint8)
    normals = None if cloud.normals is None else F.normalize(mean(cloud.normals), dim=1)
    return PointCloud(points, colors, None, normals, cloud.offset)
