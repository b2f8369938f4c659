"""Node: To Point Cloud."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import torch
from comfy_api.latest import Types, io
from torch import Tensor
from torch.nn.functional import interpolate

from ..mforce_core.point_cloud import FOV_DEGREES, MAX_POINTS, depth_edges, scaled_edge_threshold, unproject
from ..mforce_core.point_cloud_files import to_ply
from .geometry import Geometry, geometry_depth, resize_image
from .image_fit import to_rgb

NAME = "To Point Cloud"

# ComfyUI's 3D viewer: its vertical field of view, and where the first look comes from.
_VIEWER_FOV_DEGREES = 35.0
_VIEW_DIRECTION = (0.4, 0.25, 1.0)
_SOLID_SIDE = 512  # pixels of a picture whose points look like a closed surface there
_IN_VIEW = 0.95  # of the points; the rest may be at the rim


class MFToPointCloud(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFToPointCloud",
            display_name=NAME,
            category="3d",
            description=(
                "A coloured point cloud from raw depth, as a PLY file for Preview Point Cloud and Save Point "
                "Cloud. Streaks at depth edges are left out."
            ),
            search_aliases=["modality forcing", "ply", "depth to point cloud", "unproject", "pointcloud"],
            inputs=[
                Geometry.Input(
                    "geometry", tooltip="Raw depth from Depth Detokenize, MF Load Depth or Run MoGe Inference."
                ),
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
                    default=False,
                    tooltip="Leave out points that are unusually far from their neighbours. "
                    "Takes distant, slanted floors along.",
                ),
                io.Int.Input(
                    "density",
                    default=0,
                    min=0,
                    max=8,
                    tooltip="Points along the side of a pixel: above 1, surfaces are filled in between pixels. 0: as "
                    "many as a small picture needs to look solid (4 at 128 pixels, 1 from 512 on).",
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
        density: int,
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
        one, known = depth[batch_index], valid[batch_index]
        side = max(one.shape)
        known = known & ~depth_edges(one, edge_threshold or scaled_edge_threshold(side))
        one, known = densify(one, known, density or math.ceil(_SOLID_SIDE / side))
        rgb = None
        if image is not None:
            picture = image[batch_index if image.shape[0] > 1 else 0][None]
            rgb = resize_image(to_rgb(picture).cpu(), *one.shape)[0]
        try:
            cloud = unproject(
                one,
                fov_degrees=fov_degrees or FOV_DEGREES,
                intrinsics=_camera(geometry, batch_index, fov_degrees),
                rgb=rgb,
                valid=known,
                edge_threshold=None,
                remove_outliers=remove_outliers,
                max_points=max_points,
                centre=True,
            )
        except ValueError as error:
            raise ValueError(f"{NAME}: {error}") from error
        return io.NodeOutput(Types.File3D(BytesIO(to_ply(cloud)), "ply"), viewpoint(cloud.points))


def densify(depth: Tensor, valid: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Depth (H, W) and its valid pixels at ``factor`` times the size, interpolated between valid pixels only.

    In 1 / depth, in which a flat surface is linear across the picture, so that it stays flat.
    """
    if factor == 1:
        return depth, valid
    size = [factor * side for side in depth.shape]
    near = torch.where(valid, 1.0 / depth, torch.zeros_like(depth))

    def enlarge(maps: Tensor) -> Tensor:
        return interpolate(maps[None, None], size, mode="bilinear", align_corners=False)[0, 0]

    weight = enlarge(valid.float())
    return weight / enlarge(near).clamp(min=1e-12), weight > 0.999


def viewpoint(points: Tensor) -> dict[str, Any]:
    """LOAD3D_CAMERA that sees a cloud (M, 3) whole, from a little right of and above the camera that took it.

    In the viewer's own frame: it moves the middle of the bounding box to the origin and scales the farthest point to
    distance 1.
    """
    low, high = points.min(dim=0).values, points.max(dim=0).values
    centred = points - (low + high) / 2
    centred = centred / centred.norm(dim=1).max().clamp(min=1e-12)
    target = centred.mean(dim=0)
    rank = max(1, math.ceil(_IN_VIEW * len(points)))
    reach = (centred - target)[:, :2].norm(dim=1).kthvalue(rank).values.item()
    distance = reach / math.tan(math.radians(_VIEWER_FOV_DEGREES / 2))
    direction = torch.tensor(_VIEW_DIRECTION, device=target.device)
    position = target + distance * direction / direction.norm()
    return {
        "position": dict(zip("xyz", position.tolist(), strict=True)),
        "target": dict(zip("xyz", target.tolist(), strict=True)),
        "zoom": 1,
        "cameraType": "perspective",
    }


def _camera(geometry: dict[str, Any], index: int, fov_degrees: float) -> Tensor | None:
    """The geometry's own normalised camera (3, 3) where no field of view overrides it."""
    intrinsics = geometry.get("intrinsics")
    if fov_degrees or intrinsics is None:
        return None
    return torch.as_tensor(intrinsics)[index].float().cpu()
