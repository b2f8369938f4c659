"""Point clouds between nodes: PLY files in memory, and the camera of ComfyUI's 3D viewer.

Relies on: ``Types.File3D`` of ``comfy_api.latest``; the LOAD3D_CAMERA dictionary that Preview Point Cloud takes; and
the viewer of ComfyUI's frontend, which moves a model's bounding box to the origin and scales it.
"""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import torch
from comfy_api.latest import Types
from torch import Tensor

from ...mforce_core.scene3d.point_cloud import PointCloud
from ...mforce_core.scene3d.point_cloud_files import read_ply, to_ply
from ...mforce_core.scene3d.voxels import extent, thin
from .shared_inputs import DEPTH_UNITS, NO_THINNING

# The viewer's vertical field of view, and the direction of the first look.
_VIEWER_FOV_DEGREES = 35.0
_VIEW_DIRECTION = (0.4, 0.25, 1.0)
_IN_VIEW = 0.95  # of the points; the rest may lie beyond the frame


def ply_file(cloud: PointCloud) -> Types.File3D:
    """A cloud as the PLY file that goes from node to node."""
    return Types.File3D(BytesIO(to_ply(cloud)), "ply")


def read_ply_file(name: str, file: Any) -> PointCloud:
    """The cloud of the file at the input ``name``.

    Raises:
        ValueError: the file is of another format, or damaged.
    """
    if not isinstance(file, Types.File3D):
        raise ValueError(f"{name} is no file; connect a PLY point cloud.")
    if file.format != "ply":
        raise ValueError(f"{name} is a {file.format or 'nameless'} file; connect a PLY point cloud.")
    try:
        return read_ply(file.get_data().getvalue())
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def thinned(cloud: PointCloud, how: str, size: float) -> PointCloud:
    """The cloud after voxel thinning, as the widgets of `.shared_inputs.thinning_inputs` ask for it.

    Raises:
        ValueError: the voxels are too small for the cloud.
    """
    if how == NO_THINNING or len(cloud) < 2:  # one point has no extent, and nothing to thin
        return cloud
    return thin(cloud, size if how == DEPTH_UNITS else size * extent(cloud))


def viewer_camera(points: Tensor) -> dict[str, Any]:
    """LOAD3D_CAMERA that sees a whole cloud (M, 3), from slightly right of and above the camera that took it.

    In the viewer's own coordinates: the center of the bounding box is the origin, the farthest point at distance 1.
    """
    low, high = points.min(dim=0).values, points.max(dim=0).values
    centered = points - (low + high) / 2
    centered = centered / centered.norm(dim=1).max().clamp(min=1e-12)
    target = centered.mean(dim=0)
    rank = max(1, math.ceil(_IN_VIEW * len(points)))
    reach = (centered - target)[:, :2].norm(dim=1).kthvalue(rank).values.item()
    distance = reach / math.tan(math.radians(_VIEWER_FOV_DEGREES / 2))
    direction = torch.tensor(_VIEW_DIRECTION, device=target.device)
    position = target + distance * direction / direction.norm()
    return {
        "position": dict(zip("xyz", position.tolist(), strict=True)),
        "target": dict(zip("xyz", target.tolist(), strict=True)),
        "zoom": 1,
        "cameraType": "perspective",
    }
