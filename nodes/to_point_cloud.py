"""Node: To Point Cloud."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.release import MAX_POINTS
from ..mforce_core.scene3d.point_cloud import PointCloud
from .host.geometry import as_moge, check_index, geometry_cameras, geometry_depth, geometry_pictures
from .host.node import Node
from .host.point_clouds import cloud_of_map, in_world, ply_file, thinned, viewer_camera
from .host.shared_inputs import (
    NO_THINNING,
    VOXEL_SIZE,
    edge_threshold_input,
    geometry_input,
    other_fov_input,
    thinning_inputs,
    viewer_camera_output,
)

ONE_MAP, ALL_MAPS = "batch_index", "all"


class MFToPointCloud(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFToPointCloud",
            display_name="To Point Cloud",
            category="3d",
            description=(
                "A colored point cloud from raw depth, as a PLY file for Preview Point Cloud and Save Point Cloud."
                " Streaks at depth edges are left out."
            ),
            search_aliases=[
                "modality forcing",
                "3d photo",
                "ply",
                "depth to point cloud",
                "unproject",
                "pointcloud",
                "voxel",
                "normals",
            ],
            inputs=[
                geometry_input(),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Colors of the points. If nothing is connected, the geometry's own picture.",
                ),
                other_fov_input(),
                edge_threshold_input(
                    "Leave out pixels where depth jumps by more than this fraction within 3x3 pixels, which would make"
                    " streaks between near and far.",
                    "keeps them all",
                ),
                io.Boolean.Input(
                    "remove_outliers",
                    default=False,
                    tooltip=(
                        "Leave out points that are unusually far from their neighbors. This also removes distant,"
                        " slanted floors."
                    ),
                ),
                io.Int.Input(
                    "density",
                    default=0,
                    min=0,
                    max=8,
                    tooltip=(
                        "Points along the side of a pixel: above 1, surfaces are filled in between pixels. 0: as many"
                        " as a small picture needs to look solid (4 at 128 pixels, 1 from 512 up)."
                    ),
                ),
                io.Int.Input("batch_index", default=0, min=0, max=4096, tooltip="Which map of a batch to use, from 0."),
                io.Int.Input(
                    "max_points",
                    default=MAX_POINTS,
                    min=1,
                    max=100_000_000,
                    advanced=True,
                    tooltip="At most this many points; if there are more, a random selection of them.",
                ),
                *thinning_inputs(),
                io.Boolean.Input(
                    "normals",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Write the surface normal at each point, toward the camera, as nx, ny and nz.",
                ),
                io.Combo.Input(
                    "maps",
                    options=[ONE_MAP, ALL_MAPS],
                    default=ONE_MAP,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "batch_index: one map of a batch. all: the points of all maps in one cloud, where the geometry"
                        " says that each camera stood, else as if one camera had seen them."
                    ),
                ),
                io.Boolean.Input(
                    "centre",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Move the cloud's median to the origin. Off: the camera stays at the origin, so that clouds"
                        " from one camera fit together in MF Merge Point Clouds."
                    ),
                ),
            ],
            outputs=[
                io.File3DPLY.Output(display_name="point_cloud", tooltip="PLY file, centered, y up, camera along -z."),
                viewer_camera_output(),
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
        geometry = as_moge(geometry)
        depth, valid = geometry_depth(geometry)
        count = len(depth)
        if maps == ONE_MAP:
            check_index(batch_index, count)
        pictures = geometry_pictures(geometry, image, count)
        cameras = geometry_cameras(geometry, depth, fov_degrees)

        def cloud_of(index: int) -> PointCloud:
            return cloud_of_map(
                depth[index],
                valid[index],
                cameras[index],
                None if pictures is None else pictures[index if len(pictures) > 1 else 0],
                edge_threshold=edge_threshold,
                density=density,
                normals=normals,
                remove_outliers=remove_outliers,
            )

        clouds = [cloud_of(index) for index in (range(count) if maps == ALL_MAPS else [batch_index])]
        cloud = in_world(clouds, geometry.get("extrinsics")) if maps == ALL_MAPS else clouds[0]
        cloud = thinned(cloud, voxel_thinning, voxel_size).limited(max_points)
        cloud = cloud.centered() if centre else cloud
        return io.NodeOutput(ply_file(cloud), viewer_camera(cloud.points))
