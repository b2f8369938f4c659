"""Node: MF Render View."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.release import FOV_DEGREES
from ..mforce_core.scene3d.camera_path import PATHS, Move, combine, path_moves
from ..mforce_core.scene3d.holes import fill_from_background
from ..mforce_core.scene3d.point_cloud import intrinsics_from_fov, scaled_edge_threshold
from ..mforce_core.scene3d.render_view import render_view
from ..mforce_core.scene3d.surface import build_surface
from .host.geometry import Geometry, as_moge, geometry_depth, geometry_of_cameras, resize_image
from .host.image_fit import to_rgb

NAME = "MF Render View"
BACKGROUND, BLACK = "background", "black"
_CENTER = 0.1  # of the picture's size: the middle whose median depth is what the camera aims at


class MFRenderView(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def degrees(name: str, default: float, tooltip: str, advanced: bool = False) -> io.Input:
            return io.Float.Input(
                name, default=default, min=-180.0, max=180.0, step=0.5, advanced=advanced, tooltip=tooltip
            )

        def way(name: str, where: str) -> io.Input:
            return io.Float.Input(
                name,
                default=0.0,
                min=-10.0,
                max=10.0,
                step=0.01,
                tooltip=f"Move the camera {where}: 0.1 is a tenth of the distance to what is in the middle.",
            )

        return io.Schema(
            node_id="MFRenderView",
            display_name=NAME,
            category="3d",
            description=(
                "The same scene from another camera: picture, mask of what was hidden before (for inpainting) and "
                "depth. With a path, a clip that loops, for Create Video."
            ),
            search_aliases=[
                "modality forcing",
                "novel view",
                "parallax",
                "3d photo",
                "reproject",
                "camera move",
                "depth warp",
                "2.5d",
            ],
            inputs=[
                Geometry.Input(
                    "geometry", tooltip="Raw depth from Depth Detokenize, MF Load Depth or Run MoGe Inference."
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture to show; without it the geometry's own. Resized to the depth.",
                ),
                degrees(
                    "orbit_right", 8.0, "Go around what is in the middle of the picture, to the right, in degrees."
                ),
                degrees("orbit_up", 0.0, "Go around what is in the middle of the picture, upwards, in degrees."),
                way("move_right", "to the right"),
                way("move_up", "up"),
                way("move_forward", "closer"),
                degrees("yaw", 0.0, "Turn the camera to the right where it stands, in degrees.", advanced=True),
                degrees("pitch", 0.0, "Turn the camera up where it stands, in degrees.", advanced=True),
                degrees("roll", 0.0, "Turn the camera clockwise where it stands, in degrees.", advanced=True),
                io.Combo.Input(
                    "path",
                    options=list(PATHS),
                    default="still",
                    tooltip="still: one view. The others are clips around that view which end where they begin. swing: "
                    "from side to side. orbit: an ellipse. dolly: closer and back. spiral: a growing and shrinking "
                    "circle, and closer.",
                ),
                io.Int.Input(
                    "frames",
                    default=48,
                    min=1,
                    max=4096,
                    tooltip="Length of the clip; not used for a still. A batch of several maps (a video) has one "
                    "frame for each instead.",
                ),
                io.Float.Input(
                    "amplitude",
                    default=0.12,
                    min=0.0,
                    max=5.0,
                    step=0.01,
                    tooltip="How far a path goes, as a share of the distance to what is in the middle.",
                ),
                io.Combo.Input(
                    "fill",
                    options=[BACKGROUND, BLACK],
                    default=BACKGROUND,
                    tooltip="What the picture shows where nothing is known. background: soft colors of what lies "
                    "behind, good in clips. black: nothing. The mask is the same.",
                ),
                io.Float.Input(
                    "fov_degrees",
                    default=0.0,
                    min=0.0,
                    max=170.0,
                    step=0.5,
                    advanced=True,
                    tooltip="Horizontal field of view of the camera. 0: the camera that the geometry comes with.",
                ),
                io.Float.Input(
                    "edge_threshold",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Neighboring pixels whose depth differs by more than this fraction are torn apart. 0: by "
                    "the picture's size (0.04 from 512 pixels on). 100 tears nothing.",
                ),
                io.Int.Input(
                    "edge_softness",
                    default=2,
                    min=0,
                    max=16,
                    advanced=True,
                    tooltip="Width in pixels of the soft edges of depth and picture, which would leave stray pixels "
                    "and outlines in the gaps. More for enlarged depth, 0 for perfectly sharp renderings.",
                ),
                io.Int.Input(
                    "samples",
                    default=2,
                    min=1,
                    max=4,
                    advanced=True,
                    tooltip="Samples along the side of a pixel. 1 is fastest and has jagged edges.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="What the moved camera sees, one picture for each frame."
                ),
                io.Mask.Output(
                    display_name="holes",
                    tooltip="White where a pixel has no source, or not for all of it: hidden before, or outside the "
                    "picture. For inpainting.",
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
    ) -> io.NodeOutput:
        geometry = as_moge(NAME, geometry)
        depth, valid = geometry_depth(NAME, geometry)
        maps, height, width = depth.shape
        pictures = _pictures(geometry, image, maps, height, width)
        cameras = _cameras(geometry, maps, height, width, fov_degrees)
        base = Move(orbit_right, orbit_up, move_right, move_up, move_forward, yaw, pitch, roll)
        count = maps if maps > 1 else 1 if path == "still" else frames
        moves = [combine(base, move) for move in path_moves(path, count, amplitude)]

        device = comfy.model_management.get_torch_device()
        # Apple's GPUs have no 64-bit minimum, which the z-buffer is made of.
        device = torch.device("cpu") if device.type == "mps" else device
        progress = comfy.utils.ProgressBar(count)
        colors = torch.empty(count, height, width, 3)
        holes, depths = torch.empty(count, height, width), torch.empty(count, height, width)
        for frame, move in enumerate(moves):
            comfy.model_management.throw_exception_if_processing_interrupted()
            index = min(frame, maps - 1)
            if frame == index:
                if not valid[index].any():
                    raise ValueError(
                        f"{NAME}: depth map {index} of geometry has no valid pixel, so there is nothing to see."
                    )
                surface = build_surface(
                    depth[index].to(device),
                    valid[index].to(device),
                    edge_threshold=edge_threshold or scaled_edge_threshold(max(height, width)),
                    softness=edge_softness,
                )
                picture = pictures[min(index, len(pictures) - 1)].to(device)
                pivot = _pivot(depth[index], valid[index], cameras[index])
            view = render_view(surface, picture, cameras[index], move.pose(pivot), samples=samples)
            shown = view.color * view.coverage[..., None]
            if fill == BACKGROUND:
                shown = fill_from_background(view.color, view.coverage, view.depth)
            colors[frame] = shown
            holes[frame] = (view.coverage < 1.0).float()
            depths[frame] = view.depth
            progress.update(1)
        output = comfy.model_management.intermediate_device()
        views = cameras[0].expand(count, 3, 3) if maps == 1 else cameras
        seen = geometry_of_cameras(depths, depths > 0, colors, views.contiguous())
        return io.NodeOutput(colors.to(output), holes.to(output), seen)


def _pictures(geometry: dict[str, Any], image: Tensor | None, maps: int, height: int, width: int) -> Tensor:
    """One picture for each map, or one for all: (B or 1, H, W, 3) in [0, 1]."""
    image = geometry.get("image") if image is None else image
    if image is None:
        raise ValueError(f"{NAME}: the geometry has no picture; connect one to image.")
    if image.shape[0] not in (1, maps):
        raise ValueError(
            f"{NAME}: image has {image.shape[0]} pictures for {maps} depth maps; give one for each, or one."
        )
    return resize_image(to_rgb(image).cpu(), height, width).float()


def _cameras(geometry: dict[str, Any], maps: int, height: int, width: int, fov_degrees: float) -> Tensor:
    """(B, 3, 3) normalized cameras of the maps."""
    intrinsics = geometry.get("intrinsics")
    if fov_degrees or intrinsics is None:
        return intrinsics_from_fov(height, width, fov_degrees or FOV_DEGREES).expand(maps, 3, 3)
    return torch.as_tensor(intrinsics).float().cpu().expand(maps, 3, 3)


def _pivot(depth: Tensor, valid: Tensor, intrinsics: Tensor) -> Tensor:
    """The point (3,) in the middle of the picture, at the median depth around there."""
    height, width = depth.shape
    rows, columns = (slice(int(side * (0.5 - _CENTER)), int(side * (0.5 + _CENTER)) + 1) for side in (height, width))
    middle = depth[rows, columns][valid[rows, columns]]
    distance = (middle if len(middle) else depth[valid]).median()
    focal, center = intrinsics.diagonal()[:2], intrinsics[:2, 2]
    return torch.cat([(0.5 - center) / focal, torch.ones(1)]) * distance
