"""Node: To Point Cloud."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import torch
from comfy_api.latest import Types, io
from torch import Tensor
from torch.nn.functional import interpolate

from ..mforce_core.release import FOV_DEGREES, MAX_POINTS, RELEASE_SIZE
from ..mforce_core.scene3d.point_cloud import (
    PointCloud,
    depth_edges,
    intrinsics_from_fov,
    merge,
    scaled_edge_threshold,
    surface_normals,
    unproject,
)
from ..mforce_core.scene3d.point_cloud_files import to_ply
from ..mforce_core.scene3d.voxels import extent, thin
from .host.geometry import Geometry, as_moge, geometry_depth, resize_image
from .host.image_fit import to_rgb

NAME = "To Point Cloud"

VOXEL_SIZE = 0.005
ONE_MAP, ALL_MAPS = "batch_index", "all"
NO_THINNING, RELATIVE, DEPTH_UNITS = "off", "relative", "depth units"

# ComfyUI's 3D viewer: its vertical field of view, and where the first look comes from.
_VIEWER_FOV_DEGREES = 35.0
_VIEW_DIRECTION = (0.4, 0.25, 1.0)
_IN_VIEW = 0.95  # of the points; the rest may be at the rim


class MFToPointCloud(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFToPointCloud",
            display_name=NAME,
            category="3d",
            description=(
                "A colored point cloud from raw depth, as a PLY file for Preview Point Cloud and Save Point "
                "Cloud. Streaks at depth edges are left out."
            ),
            search_aliases=[
                "modality forcing",
                "ply",
                "depth to point cloud",
                "unproject",
                "pointcloud",
                "voxel",
                "normals",
            ],
            inputs=[
                Geometry.Input(
                    "geometry", tooltip="Raw depth from Depth Detokenize, MF Load Depth or Run MoGe Inference."
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Colors of the points; without it the geometry's own picture.",
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
                    tooltip="Leave out points that are unusually far from their neighbors. "
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
                *thinning_inputs(),
                io.Boolean.Input(
                    "normals",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Write the direction of the surface at each point, towards the camera, as nx, ny and nz.",
                ),
                io.Combo.Input(
                    "maps",
                    options=[ONE_MAP, ALL_MAPS],
                    default=ONE_MAP,
                    optional=True,
                    advanced=True,
                    tooltip="batch_index: one map of a batch. all: the points of all of them in one cloud, as if one "
                    "camera had seen them.",
                ),
                io.Boolean.Input(
                    "centre",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Move the cloud's median to the origin. Off: the camera stays at the origin, so that "
                    "clouds of one camera fit together in MF Merge Point Clouds.",
                ),
            ],
            outputs=[
                io.File3DPLY.Output(display_name="point_cloud", tooltip="PLY file, centered, y up, camera along -z."),
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
        voxel_thinning: str = NO_THINNING,
        voxel_size: float = VOXEL_SIZE,
        normals: bool = False,
        maps: str = ONE_MAP,
        centre: bool = True,
    ) -> io.NodeOutput:
        geometry = as_moge(NAME, geometry)
        depth, valid = geometry_depth(NAME, geometry)
        count = depth.shape[0]
        if maps == ONE_MAP and batch_index >= count:
            raise ValueError(
                f"{NAME}: batch_index is {batch_index}, but there are {count} depth maps (counted from 0)."
            )
        image = geometry.get("image") if image is None else image
        if image is not None and image.shape[0] not in (1, count):
            raise ValueError(f"{NAME}: image has {image.shape[0]} pictures for {count} depth maps; give one for each.")

        def cloud_of(index: int) -> PointCloud:
            one, known = depth[index], valid[index]
            side = max(one.shape)
            threshold = edge_threshold or scaled_edge_threshold(side)
            known = known & ~depth_edges(one, threshold)
            one, known = densify(one, known, density or math.ceil(RELEASE_SIZE / side))
            camera = _camera(geometry, index, fov_degrees)
            if camera is None:
                camera = intrinsics_from_fov(one.shape[0], one.shape[1], fov_degrees or FOV_DEGREES)
            rgb = None
            if image is not None:
                picture = image[index if image.shape[0] > 1 else 0][None]
                rgb = resize_image(to_rgb(picture).cpu(), *one.shape)[0]
            return unproject(
                one,
                intrinsics=camera,
                rgb=rgb,
                normals=surface_normals(one, camera, valid=known, edge_threshold=threshold) if normals else None,
                valid=known,
                edge_threshold=None,
                remove_outliers=remove_outliers,
                max_points=None,
            )

        try:
            cloud = merge([cloud_of(index) for index in (range(count) if maps == ALL_MAPS else [batch_index])])
            cloud = thinned(cloud, voxel_thinning, voxel_size).limited(max_points)
        except ValueError as error:
            raise ValueError(f"{NAME}: {error}") from error
        cloud = cloud.centered() if centre else cloud
        return io.NodeOutput(Types.File3D(BytesIO(to_ply(cloud)), "ply"), viewpoint(cloud.points))


def thinning_inputs() -> list[io.Input]:
    """The widgets of a node that thins clouds with `thinned`."""
    return [
        io.Combo.Input(
            "voxel_thinning",
            options=[NO_THINNING, RELATIVE, DEPTH_UNITS],
            default=NO_THINNING,
            optional=True,
            advanced=True,
            tooltip="One mean point for each cube of a grid, which makes the density even. relative: voxel_size is a "
            "share of the cloud's longest side. depth units: it is a length, as depth is.",
        ),
        io.Float.Input(
            "voxel_size",
            default=VOXEL_SIZE,
            min=0.00001,
            max=1000.0,
            step=0.001,
            round=0.00001,
            optional=True,
            advanced=True,
            tooltip="Side of the cubes of voxel_thinning.",
        ),
    ]


def thinned(cloud: PointCloud, how: str, size: float) -> PointCloud:
    """The cloud with voxel thinning as the widgets of `thinning_inputs` say."""
    if how == NO_THINNING:
        return cloud
    # A cloud of one point has no size, and nothing to thin.
    size = size if how == DEPTH_UNITS else size * extent(cloud)
    return thin(cloud, size) if len(cloud) > 1 else cloud


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


def _camera(geometry: dict[str, Any], index: int, fov_degrees: float) -> Tensor | None:
    """The geometry's own normalized camera (3, 3) where no field of view overrides it."""
    intrinsics = geometry.get("intrinsics")
    if fov_degrees or intrinsics is None:
        return None
    return torch.as_tensor(intrinsics)[index].float().cpu()
