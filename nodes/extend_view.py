"""Node: MF Extend View."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.edges import scaled_edge_threshold
from ..mforce_core.explore.route import cameras_of
from ..mforce_core.explore.view import Seen
from ..mforce_core.explore.walk import has_holes
from ..mforce_core.explore.world import World
from ..mforce_core.scene3d.densify import solid_density
from ..mforce_core.scene3d.render_view import View
from .host.geometry import (
    Geometry,
    as_moge,
    geometry_cameras,
    geometry_depth,
    geometry_of_cameras,
    needed_pictures,
    surroundings,
)
from .host.images import match_mask, resize_image
from .host.node import Node
from .host.notices import notice
from .host.point_clouds import ply_file
from .host.view_filling import Filling, check_view_size, filling_inputs


class MFExtendView(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFExtendView",
            display_name="MF Extend View",
            category="3d",
            description=(
                "What comes into view when the camera moves: picture and depth are made together in the holes of MF"
                " Render View, so that new and old surfaces meet. The new points join the cloud; each view of a batch"
                " sees those that the views before it added."
            ),
            search_aliases=[
                "modality forcing",
                "novel view",
                "outpaint",
                "inpaint depth",
                "fill holes",
                "3d photo",
                "disocclusion",
                "extend scene",
            ],
            inputs=[
                *filling_inputs(),
                Geometry.Input(
                    "geometry",
                    tooltip="The view: geometry of MF Render View. Any picture with depth and a mask of holes will do.",
                ),
                io.Mask.Input(
                    "holes",
                    optional=True,
                    tooltip="White where picture and depth are to be made: holes of MF Render View. If nothing is"
                    " connected, where the geometry has no depth.",
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="The view's picture. If nothing is connected, the geometry's own."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The whole view; what was known of it is unchanged."),
                Geometry.Output(display_name="geometry", tooltip="The whole view with its depth, camera and picture."),
                io.File3DPLY.Output(
                    display_name="new_points",
                    tooltip=(
                        "The points that were made, in the scene of the first picture. For MF Merge Point Clouds, with"
                        " To Point Cloud of that picture (centre off)."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        geometry: dict[str, Any],
        holes: Tensor | None = None,
        image: Tensor | None = None,
        **filling: Any,
    ) -> io.NodeOutput:
        fill = Filling(**filling)
        geometry = as_moge(geometry)
        depth, valid = geometry_depth(geometry)
        check_view_size(*depth.shape[1:])
        pictures = needed_pictures(geometry, image, len(depth))
        pictures = resize_image(pictures, *depth.shape[1:]).float().expand(*depth.shape, 3)
        if holes is not None:
            valid = valid & ~match_mask(holes.cpu(), depth)
        views = [View(color, known.float(), near) for color, near, known in zip(pictures, depth, valid, strict=True)]
        names = [f"view {number + 1}" for number in range(len(views))]
        given = list(map(Seen.of, views, names))  # all of them before the first is filled
        cameras = geometry_cameras(geometry, depth, 0.0)
        one_scene = len(views) == 1 or "extrinsics" in geometry
        if not one_scene:
            notice(
                "MF Extend View: the geometry does not say where its cameras stood, so new_points has those of the"
                " first view alone."
            )
        places = geometry.get("extrinsics", torch.eye(4).expand(len(depth), 4, 4))
        threshold = scaled_edge_threshold(max(depth.shape[1:]) / float(geometry.get("enlarged", 1.0)))
        world = World(edge_threshold=threshold, device=comfy.model_management.get_torch_device())
        filled, progress = [], fill.progress(len(views))
        for number, camera in zip(progress.views(range(len(views))), cameras_of(cameras, places), strict=True):
            one = given[number]
            if one_scene and world.pieces:  # what the views before this one added is known in it
                one = Seen.of(world.completed(camera, views[number]), names[number])
            filled.append(fill.view(progress, one, number) if has_holes(one) else one.as_it_is())
            if one_scene or number == 0:
                world.add(camera, filled[-1], one.holes)
        if not any(map(has_holes, given)):
            notice(
                "MF Extend View: nothing comes into view, so the picture is as it was and there are no new points;"
                " move the camera farther."
            )
        made, whole = (torch.stack(maps) for maps in zip(*((view.color, view.depth) for view in filled), strict=True))
        found: dict[str, Any] = geometry_of_cameras(whole, whole > 0, made, cameras)
        found |= surroundings(geometry)
        points = world.cloud(density=solid_density(max(depth.shape[1:])))
        return io.NodeOutput(made.to(comfy.model_management.intermediate_device()), found, ply_file(points))
