"""Point clouds between nodes: PLY files in memory, and the camera of ComfyUI's 3D viewer.

Relies on: ``Types.File3D`` of ``comfy_api.latest``; the LOAD3D_CAMERA dictionary that Preview Point Cloud takes; and
the viewer of ComfyUI's frontend, which moves a model's bounding box to the origin and scales it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch
from comfy_api.latest import Types
from torch import Tensor

from ...mforce_core.depth.edges import depth_edges, scaled_edge_threshold
from ...mforce_core.release import MAX_POINTS
from ...mforce_core.scene3d.densify import densify, solid_density
from ...mforce_core.scene3d.point_cloud import PointCloud, merge, seen_from, surface_normals, unproject
from ...mforce_core.scene3d.point_cloud_files import read_ply, to_ply
from ...mforce_core.scene3d.viewer import AS_IT_IS, VIEWER_FOV_DEGREES, Stage, cloud_stage
from ...mforce_core.scene3d.voxels import extent, thin
from .images import resize_image
from .shared_inputs import DEPTH_UNITS, NO_THINNING

#: What a camera of the viewer was aimed at: point clouds, of one map or of all in their world, are moved and scaled
#: there, meshes and splats are not.
CLOUD, SCENE, WORLD = VIEWERS = ("point cloud", "mesh or splat", "point cloud of all maps")

# The direction of the first look.
_VIEW_DIRECTION = (0.4, 0.25, 1.0)
_IN_VIEW = 0.95  # of the points; the rest may lie beyond the frame


def cloud_of_map(
    depth: Tensor,
    valid: Tensor,
    camera: Tensor,
    picture: Tensor | None = None,
    *,
    edge_threshold: float = 0.0,
    density: int = 0,
    normals: bool = False,
    remove_outliers: bool = False,
) -> PointCloud:
    """The points of one depth map (H, W), as many as make surfaces look closed.

    Args:
        valid: (H, W) bool.
        camera: (3, 3), normalized by the picture's size.
        picture: (H', W', 3) in [0, 1].
        edge_threshold: relative jump of depth that is left out; 0 chooses by the map's size.
        density: points along the side of a pixel; 0 chooses by the map's size.

    Raises:
        ValueError: no pixel is left.
    """
    # Also of enlarged maps: their slopes are finer, and what the size before would choose keeps points in soft ramps
    # between near and far, which surfaces need and clouds do not.
    threshold = edge_threshold or scaled_edge_threshold(max(depth.shape))
    known = valid & ~depth_edges(depth, threshold)
    dense, known = densify(depth, known, density or solid_density(max(depth.shape)))
    return unproject(
        dense,
        intrinsics=camera,
        rgb=None if picture is None else resize_image(picture[None], *dense.shape)[0],
        normals=surface_normals(dense, camera, valid=known, edge_threshold=threshold) if normals else None,
        valid=known,
        edge_threshold=None,
        remove_outliers=remove_outliers,
        max_points=None,
    )


def stage_of_cloud(cloud: PointCloud) -> Stage:
    """How the viewer shows a cloud, as seen from the camera that took it: centering is undone."""
    stage = cloud_stage(cloud.points)
    return Stage(stage.center + torch.tensor(cloud.offset, dtype=stage.center.dtype), stage.radius)


def in_world(clouds: Sequence[PointCloud], places: Tensor | None) -> PointCloud:
    """Clouds of several maps as one, with extrinsics (B, 4, 4) where each camera stood."""
    if places is None:
        return merge(clouds)
    return merge([seen_from(cloud, place) for cloud, place in zip(clouds, places, strict=True)])


def viewer_stage(
    depth: Tensor, valid: Tensor, cameras: Tensor, places: Tensor | None, shown: str, point_cloud: Any
) -> Stage:
    """What a viewer's camera looked at.

    Args:
        depth, valid: (B, H, W), with cameras (B, 3, 3) and, where they are known, their extrinsics; with the defaults
            of To Point Cloud they give the cloud that was shown.
        shown: one of `VIEWERS`.
        point_cloud: the PLY file that was shown, where it is at hand.

    Raises:
        ValueError: the file is no PLY, or the map gives no cloud.
    """
    if point_cloud is not None:
        cloud = read_ply_file("point_cloud", point_cloud)
        if not len(cloud):
            raise ValueError("point_cloud has no point.")
        return stage_of_cloud(cloud)
    if shown == SCENE:
        return AS_IT_IS
    count = len(depth) if shown == WORLD else 1
    clouds = [cloud_of_map(*one) for one in zip(depth[:count], valid, cameras, strict=False)]
    cloud = in_world(clouds, places) if shown == WORLD else clouds[0]
    return stage_of_cloud(cloud.limited(MAX_POINTS))


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
    distance = reach / math.tan(math.radians(VIEWER_FOV_DEGREES / 2))
    direction = torch.tensor(_VIEW_DIRECTION, device=target.device)
    position = target + distance * direction / direction.norm()
    return {
        "position": dict(zip("xyz", position.tolist(), strict=True)),
        "target": dict(zip("xyz", target.tolist(), strict=True)),
        "zoom": 1,
        "cameraType": "perspective",
    }


def own_camera(camera: Tensor, height: int, width: int, distance: float) -> dict[str, Any]:
    """LOAD3D_CAMERA of the camera (3, 3) that took a picture, in a viewer that shows the scene as it is.

    Its field of view is that of the picture's shorter side, as core's Render Splat takes it; a page's viewer takes it
    for the height, which is the same for pictures that are not upright.

    Args:
        camera: normalized by the picture's size.
        distance: depth that it aims at.
    """
    focal = float(camera[0, 0] if width < height else camera[1, 1])
    return {
        "position": {"x": 0.0, "y": 0.0, "z": 0.0},
        "target": {"x": 0.0, "y": 0.0, "z": -distance},
        "quaternion": {"x": 0.0, "y": 0.0, "z": 0.0, "w": 1.0},
        "fov": 2 * math.degrees(math.atan(0.5 / focal)),
        "zoom": 1,
        "cameraType": "perspective",
    }
