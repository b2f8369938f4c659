"""Node: MF Render View."""

from __future__ import annotations

from typing import Any

import comfy.model_management
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.scene3d.camera_path import PATHS, Move, combine, middle_point, path_moves
from ..mforce_core.scene3d.viewer import seen_by, shot_of
from .host.geometry import (
    Geometry,
    as_moge,
    geometry_cameras,
    geometry_depth,
    geometry_of_cameras,
    needed_pictures,
)
from .host.images import resize_image
from .host.node import Node
from .host.point_clouds import CLOUD, VIEWERS, WORLD, viewer_stage
from .host.shared_inputs import (
    BACKGROUND,
    edge_softness_input,
    edge_threshold_input,
    fill_input,
    geometry_input,
    other_fov_input,
    picture_to_show_input,
)
from .host.views import Footage, own_shot, render_frames, shots


class MFRenderView(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFRenderView",
            display_name="MF Render View",
            category="3d",
            description=(
                "The same scene from another camera: picture, mask of what was hidden before (for inpainting) and"
                " depth. With a path, a looping clip for Create Video; with camera_info, as aimed in a 3D viewer."
            ),
            search_aliases=[
                "modality forcing",
                "turntable",
                "3d photo",
                "stereo",
                "novel view",
                "parallax",
                "reproject",
                "camera move",
                "depth warp",
                "2.5d",
            ],
            inputs=[
                geometry_input(),
                picture_to_show_input(),
                _degrees("orbit_right", 8.0, "Circle to the right around the middle of the picture, in degrees."),
                _degrees("orbit_up", 0.0, "Circle upward around the middle of the picture, in degrees."),
                _distance("move_right", "to the right"),
                _distance("move_up", "up"),
                _distance("move_forward", "closer"),
                _degrees("yaw", 0.0, "Turn the camera right without moving it, in degrees.", advanced=True),
                _degrees("pitch", 0.0, "Turn the camera up without moving it, in degrees.", advanced=True),
                _degrees("roll", 0.0, "Turn the camera clockwise without moving it, in degrees.", advanced=True),
                io.Combo.Input(
                    "path",
                    options=list(PATHS),
                    default="still",
                    tooltip=(
                        "still: one view. The others are clips around that view which end where they begin. swing: from"
                        " side to side. orbit: an ellipse. dolly: closer and back. spiral: a circle that grows and"
                        " shrinks while the camera comes closer."
                    ),
                ),
                io.Int.Input(
                    "frames",
                    default=48,
                    min=1,
                    max=4096,
                    tooltip=(
                        "Length of the clip; not used for a still. A batch of several maps (a video) gives one frame"
                        " per map instead."
                    ),
                ),
                io.Float.Input(
                    "amplitude",
                    default=0.12,
                    min=0.0,
                    max=5.0,
                    step=0.01,
                    tooltip="How far a path goes, as a fraction of the distance to the middle of the picture.",
                ),
                fill_input(
                    "What the picture shows where nothing is known. background: soft colors of what lies behind,"
                    " good in clips. black: nothing. The mask is the same either way."
                ),
                other_fov_input(advanced=True),
                edge_threshold_input(
                    "Neighboring pixels whose depth differs by more than this fraction are torn apart.",
                    "tears nothing",
                    advanced=True,
                ),
                edge_softness_input(
                    "Width in pixels of the soft edges of depth and picture, which would otherwise leave stray"
                    " pixels and outlines in the gaps. Use more for enlarged depth, 0 for perfectly sharp renderings."
                ),
                io.Int.Input(
                    "samples",
                    default=2,
                    min=1,
                    max=4,
                    advanced=True,
                    tooltip="Samples along the side of a pixel. 1 is fastest and has jagged edges.",
                ),
                io.Load3DCamera.Input(
                    "camera_info",
                    optional=True,
                    tooltip=(
                        "Camera of Preview Point Cloud, Preview Splat, Load 3D or Create Camera Info, with its field of"
                        " view; in place of orbit, move, yaw, pitch and roll. Paths go around what it aims at."
                    ),
                ),
                io.Load3DCamera.Input(
                    "camera_to",
                    optional=True,
                    tooltip=(
                        "A second camera: the clip moves there within its frames, from camera_info or, without one,"
                        " from where the picture was taken."
                    ),
                ),
                io.Combo.Input(
                    "viewer",
                    options=list(VIEWERS),
                    default=CLOUD,
                    optional=True,
                    tooltip=(
                        "What the cameras were aimed at: a viewer moves and scales point clouds. point cloud: of To"
                        " Point Cloud with its defaults; connect point_cloud for others. mesh or splat: the depth's own"
                        " unit, y up, with the picture's camera at 0 looking along -z. point cloud of all maps: with"
                        " maps set to all, as for the views of Depth Anything 3; every frame stands where it was aimed."
                    ),
                ),
                io.MultiType.Input(
                    "point_cloud",
                    types=[io.File3DPLY, io.File3DPointCloudAny],
                    optional=True,
                    tooltip="The cloud that the cameras were aimed at, if To Point Cloud did not have its defaults.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="What the moved camera sees, one picture per frame."),
                io.Mask.Output(
                    display_name="holes",
                    tooltip=(
                        "White where all or part of a pixel has no source, because it was hidden before or lies outside"
                        " the picture. For inpainting."
                    ),
                ),
                Geometry.Output(
                    display_name="geometry",
                    tooltip="Depth, camera and picture of the new views, for every node that takes geometry.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        geometry: dict[str, Any],
        orbit_right: float,
        orbit_up: float,
        move_right: float,
        move_up: float,
        move_forward: float,
        yaw: float,
        pitch: float,
        roll: float,
        path: str,
        frames: int,
        amplitude: float,
        fill: str,
        fov_degrees: float,
        edge_threshold: float,
        edge_softness: int,
        samples: int,
        image: Tensor | None = None,
        camera_info: dict[str, Any] | None = None,
        camera_to: dict[str, Any] | None = None,
        viewer: str = CLOUD,
        point_cloud: Any = None,
    ) -> io.NodeOutput:
        geometry = as_moge(geometry)
        depth, valid = geometry_depth(geometry)
        maps = len(depth)
        pictures = needed_pictures(geometry, image, maps)
        cameras = geometry_cameras(geometry, depth, fov_degrees)
        count = maps if maps > 1 else 1 if path == "still" and camera_to is None else frames
        moves = path_moves(path, count, amplitude)
        first = last = None
        if camera_info is not None or camera_to is not None:
            stage = viewer_stage(depth, valid, cameras, geometry.get("extrinsics"), viewer, point_cloud)
            first, last = (None if camera is None else shot_of(camera, stage) for camera in (camera_info, camera_to))
        if first is None:
            base = Move(orbit_right, orbit_up, move_right, move_up, move_forward, yaw, pitch, roll)
            moves = moves if last is not None else [combine(base, move) for move in moves]
        own = own_shot(cameras[0], middle_point(depth[0], valid[0], cameras[0]))
        world = geometry.get("extrinsics") if viewer == WORLD else None
        if world is not None:
            own = seen_by(own, world[0].inverse())
        taken = shots(first, last, own, moves)
        if world is not None:
            taken = [camera.seen_by(world[min(number, maps - 1)]) for number, camera in enumerate(taken)]
        enlarged = float(geometry.get("enlarged", 1.0))
        rendered = render_frames(
            Footage(depth, valid, resize_image(pictures, *depth.shape[1:]).float(), cameras, enlarged),
            taken,
            edge_threshold=edge_threshold,
            edge_softness=edge_softness,
            samples=samples,
            fill=fill == BACKGROUND,
        )
        views: dict[str, Any] = geometry_of_cameras(
            rendered.depth, rendered.depth > 0, rendered.pictures, rendered.lenses
        )
        # From the world of the geometry, where it has one, to its cameras, and on to those of the frames.
        places = rendered.extrinsics
        if "extrinsics" in geometry:
            places = places @ geometry["extrinsics"]
        views |= {"extrinsics": places, "enlarged": enlarged}
        device = comfy.model_management.intermediate_device()
        return io.NodeOutput(rendered.pictures.to(device), rendered.holes.to(device), views)


def _degrees(name: str, default: float, tooltip: str, advanced: bool = False) -> io.Input:
    return io.Float.Input(name, default=default, min=-180.0, max=180.0, step=0.5, advanced=advanced, tooltip=tooltip)


def _distance(name: str, direction: str) -> io.Input:
    return io.Float.Input(
        name,
        default=0.0,
        min=-10.0,
        max=10.0,
        step=0.01,
        tooltip=f"Move the camera {direction}: 0.1 is a tenth of the distance to the middle of the picture.",
    )
