"""Node: To Point Cloud."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import torch
from comfy_api.latest import Types, io
from torch import Tensor

from ..mforce_core.point_cloud import FOV_DEGREES, MAX_POINTS, scaled_edge_threshold, unproject
from ..mforce_core.point_cloud_files import to_ply
from .geometry import Geometry, geometry_depth, resize_image
from .image_fit import to_rgb

NAME = "To Point Cloud"

# ComfyUI's 3D viewer: its vertical field of view, and where the first look comes from.
_VIEWER_FOV_DEGREES = 35.0
_VIEW_DIRECTION = (0.4, 0.25, 1.0)


class MFToPointCloud(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFToPointCloud",
            display_name=NAME,
            category="3d",
            description=(
                "A coloured point cloud from raw depth, as a PLY file for Preview Point Cloud and Save Point "
                "Cloud. Streaks at depth edges and stray points are left out."
            ),
            search_aliases=["modality forcing", "ply", "depth to point cloud", "unproject", "pointcloud"],
            inputs=[
                Geometry.Input("geometry", tooltip="Raw depth from Depth Detokenize, or from Run MoGe Inference."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Colours of the points; without it the geometry's own picture.",
                ),
                io.Float.Input(
                    "fov_degrees",
                    default=0.0,
                    min=0.0,
                    max=170.0,
                    step=0.5,
                    tooltip=("Horizontal field of view of the camera. 0: the camera that the geometry comes with."),
                ),
                io.Float.Input(
                    "edge_threshold",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    tooltip="Leave out pixels where depth jumps by more than this fraction within 3x3 pixels, which "
                    "would make streaks between near and far. 0: by the picture's size (0.04 from 512 pixels on). "
                    "100 keeps them all.",
                ),
                io.Boolean.Input(
                    "remove_outliers",
                    default=True,
                    tooltip="Leave out points that are unusually far from their neighbours.",
                ),
                io.Int.Input("batch_index", default=0, min=0, max=4096, tooltip="Which map of a batch to use, from 0."),
                io.Int.Input(
                    "max_points",
                    default=MAX_POINTS,
                    min=1,
                    max=100_000_000,
                    advanced=True,
                    tooltip="At most this many points, drawn at random where there are more.",
                ),
            ],
            outputs=[
                io.File3DPLY.Output(display_name="point_cloud", tooltip="PLY file, centred, y up, camera along -z."),
                io.Load3DCamera.Output(
                    display_name="camera",
                    tooltip="A view of the whole cloud, for camera_info of Preview Point Cloud.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        geometry: dict[str, Any],
        fov_degrees: float,
        edge_threshold: float,
        remove_outliers: bool,
        batch_index: int,
        max_points: int,
        image: Tensor | None = None,
    ) -> io.NodeOutput:
        depth, valid = geometry_depth(NAME, geometry)
        if batch_index >= depth.shape[0]:
            raise ValueError(
                f"{NAME}: batch_index is {batch_index}, but there are {depth.shape[0]} depth maps (counted from 0)."
            )
        if image is None:
            image = geometry.get("image")
        rgb = None
        if image is not None:
            picture = image[batch_index if image.shape[0] > 1 else 0][None]
            rgb = resize_image(to_rgb(picture).cpu(), *depth.shape[1:])[0]
        try:
            cloud = unproject(
                depth[batch_index],
                fov_degrees=fov_degrees or FOV_DEGREES,
                intrinsics=_camera(geometry, batch_index, fov_degrees),
                rgb=rgb,
                valid=valid[batch_index],
                edge_threshold=edge_threshold or scaled_edge_threshold(max(depth.shape[1:])),
                remove_outliers=remove_outliers,
                max_points=max_points,
                centre=True,
            )
        except ValueError as error:
            raise ValueError(f"{NAME}: {error}") from error
        return io.NodeOutput(Types.File3D(BytesIO(to_ply(cloud)), "ply"), viewpoint(cloud.points))


def viewpoint(points: Tensor) -> dict[str, Any]:
    """LOAD3D_CAMERA that sees a centred cloud (M, 3) whole, from a little right of and above its own camera."""
    rank = max(1, math.ceil(0.98 * len(points)))
    reach = points[:, :2].norm(dim=1).kthvalue(rank).values.item()
    front = max(0.0, points[:, 2].kthvalue(rank).values.item())
    distance = reach / math.tan(math.radians(_VIEWER_FOV_DEGREES / 2)) + front
    length = math.hypot(*_VIEW_DIRECTION)
    position = {axis: distance * part / length for axis, part in zip("xyz", _VIEW_DIRECTION, strict=True)}
    return {
        "position": position,
        "target": dict.fromkeys("xyz", 0.0),
        "zoom": 1,
        "cameraType": "perspective",
    }


def _camera(geometry: dict[str, Any], index: int, fov_degrees: float) -> Tensor | None:
    """The geometry's own normalised camera (3, 3) where no field of view overrides it."""
    intrinsics = geometry.get("intrinsics")
    if fov_degrees or intrinsics is None:
        return None
    return torch.as_tensor(intrinsics)[index].float().cpu()
