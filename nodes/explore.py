"""Node: MF Explore."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.edges import scaled_edge_threshold
from ..mforce_core.explore.route import ROUTES, STEREO, WALK_IN, cameras_between, cameras_of, route_cameras
from ..mforce_core.explore.view import Filled
from ..mforce_core.explore.walk import extend, frame
from ..mforce_core.explore.world import Camera, World
from ..mforce_core.scene3d.camera_files import read_json
from ..mforce_core.scene3d.camera_path import middle_point
from ..mforce_core.scene3d.densify import solid_density
from ..mforce_core.scene3d.poses import Pose
from ..mforce_core.scene3d.stereo import LAYOUTS, compose
from ..mforce_core.scene3d.viewer import shot_of
from .host.footage import footage_of
from .host.geometry import Geometry, geometry_of_cameras
from .host.node import Node
from .host.point_clouds import CLOUD, SCENE, ply_file, viewer_camera, viewer_stage
from .host.shared_inputs import (
    edge_softness_input,
    edge_threshold_input,
    geometry_input,
    other_fov_input,
    picture_to_show_input,
    viewer_camera_output,
)
from .host.view_filling import Filling, check_view_size, filling_inputs
from .host.views import own_shot

BOTH_EYES = "two pictures"


class MFExplore(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFExplore",
            display_name="MF Explore",
            category="3d",
            description=(
                "Walk into a picture: along a camera path, picture and depth are made where nothing was known, one"
                " view after the other. The scene that grows comes out as a point cloud and as a clip without holes."
            ),
            search_aliases=[
                "modality forcing",
                "walk into the picture",
                "novel view",
                "3d photo",
                "camera path",
                "scene extension",
                "stereo",
                "infinite zoom",
                "point cloud",
            ],
            inputs=[
                *filling_inputs(),
                geometry_input(),
                picture_to_show_input(),
                io.Combo.Input(
                    "route",
                    options=list(ROUTES),
                    default=WALK_IN,
                    tooltip=(
                        "Where the camera goes. walk in, to the right, to the left, up, back: straight. swing, orbit,"
                        " dolly, spiral: clips that end where they begin, as in MF Render View. stereo: left and right"
                        " eye."
                    ),
                ),
                io.Int.Input(
                    "views",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="How many views along the path are filled; each sees what those before it added.",
                ),
                io.Float.Input(
                    "amplitude",
                    default=0.3,
                    min=0.0,
                    max=5.0,
                    step=0.01,
                    tooltip=(
                        "How far the camera goes, as a fraction of the distance to the middle of the picture; for"
                        " stereo, the distance between the eyes: 0.03 is comfortable."
                    ),
                ),
                io.Int.Input(
                    "frames",
                    default=48,
                    min=1,
                    max=4096,
                    tooltip="Length of the clip through the finished scene. Not used for stereo and cameras.",
                ),
                io.Combo.Input(
                    "layout",
                    options=[BOTH_EYES, *LAYOUTS],
                    default=BOTH_EYES,
                    tooltip="Stereo only: how both eyes are put into one picture.",
                ),
                other_fov_input(advanced=True),
                edge_threshold_input(
                    "Neighboring pixels whose depth differs by more than this fraction are torn apart.",
                    "tears nothing",
                    advanced=True,
                ),
                edge_softness_input("Width in pixels of the soft edges of depth and picture; 0 for sharp renderings."),
                io.Load3DCamera.Input(
                    "camera_info",
                    optional=True,
                    tooltip="Camera of a 3D viewer, to which the camera goes in place of the route.",
                ),
                io.Combo.Input(
                    "viewer",
                    options=[CLOUD, SCENE],
                    default=CLOUD,
                    optional=True,
                    tooltip=(
                        "What camera_info was aimed at. point cloud: of To Point Cloud with its defaults; connect"
                        " point_cloud for others. mesh or splat: the depth's own unit."
                    ),
                ),
                io.MultiType.Input(
                    "point_cloud",
                    types=[io.File3DPLY, io.File3DPointCloudAny],
                    optional=True,
                    tooltip="The cloud that camera_info was aimed at, if To Point Cloud did not have its defaults.",
                ),
                io.String.Input(
                    "cameras",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip=(
                        "JSON of cameras in place of route, views and frames: transforms.json (OpenGL) or"
                        " world_to_camera (OpenCV), as MF Save Camera writes them; the picture's camera is at the"
                        " origin."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The clip, for Create Video; for stereo, both eyes."),
                Geometry.Output(
                    display_name="geometry",
                    tooltip="The filled views with their cameras, for MF Save Camera and To Point Cloud (maps: all).",
                ),
                io.File3DPLY.Output(
                    display_name="point_cloud", tooltip="PLY file of the scene; the picture's camera is at the origin."
                ),
                viewer_camera_output(),
            ],
        )

    @classmethod
    def execute(
        cls,
        geometry: dict[str, Any],
        route: str,
        views: int,
        amplitude: float,
        frames: int,
        layout: str,
        fov_degrees: float,
        edge_threshold: float,
        edge_softness: int,
        image: Tensor | None = None,
        camera_info: dict[str, Any] | None = None,
        viewer: str = CLOUD,
        point_cloud: Any = None,
        cameras: str = "",
        **filling: Any,
    ) -> io.NodeOutput:
        fill = Filling(**filling)
        footage = footage_of(geometry, image, fov_degrees)
        if len(footage.depth) > 1:
            raise ValueError(f"the geometry holds {len(footage.depth)} maps, and a walk starts from one picture.")
        depth, valid, lens = footage.depth[0], footage.valid[0], footage.cameras[0]
        size = height, width = depth.shape[0], depth.shape[1]
        check_view_size(height, width)
        own = Camera(Pose(torch.eye(3), torch.zeros(3)), lens)
        pivot = middle_point(depth, valid, lens)

        def way(count: int) -> list[Camera]:
            if cameras.strip():
                return cameras_of(*read_json(cameras, lens, size))
            if camera_info is not None:
                shot = shot_of(
                    camera_info, viewer_stage(footage.depth, footage.valid, footage.cameras, None, viewer, point_cloud)
                )
                return cameras_between(own_shot(lens, pivot), shot, count, size)
            return route_cameras(route, count, amplitude, own, pivot)

        threshold = edge_threshold or scaled_edge_threshold(max(size) / footage.enlarged)
        device = comfy.model_management.get_torch_device()
        world = World(edge_threshold=threshold, softness=edge_softness, device=device)
        world.add(own, Filled(footage.pictures[0], torch.where(valid, depth, torch.zeros_like(depth))))
        to_fill, to_show = way(views), way(frames)
        progress = fill.progress(len(to_fill), len(to_show))
        fill_view = partial(fill.view, progress)
        walked = [extend(world, camera, fill_view, n) for n, camera in enumerate(progress.views(to_fill))]
        pictures = torch.stack([frame(world, camera)[0] for camera in progress.rest(to_show)])
        of_the_route = camera_info is None and not cameras.strip()
        if of_the_route and route == STEREO and layout != BOTH_EYES:
            pictures = compose(pictures[0], pictures[1], layout)[None]
        color, depths, lenses, places = (
            torch.stack(maps)
            for maps in zip(
                *((step.view.color, step.view.depth, step.camera.lens, step.camera.extrinsics) for step in walked),
                strict=True,
            )
        )
        found: dict[str, Any] = geometry_of_cameras(depths, depths > 0, color, lenses)
        found |= {"extrinsics": places, "enlarged": footage.enlarged}
        cloud = world.cloud(density=solid_density(max(size)))
        pictures = pictures.to(comfy.model_management.intermediate_device())
        return io.NodeOutput(pictures, found, ply_file(cloud), viewer_camera(cloud.points))
