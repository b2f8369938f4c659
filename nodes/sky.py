"""Node: MF Sky."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.sky import HANDLINGS, find_sky, handle_sky
from .host.geometry import as_moge, geometry_cameras, geometry_depth, geometry_of_cameras, surroundings
from .host.images import gray_image, match_mask
from .host.node import Node
from .host.shared_inputs import geometry_input, geometry_output


class MFSky(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFSky",
            display_name="MF Sky",
            category="image/geometry estimation",
            description=(
                "Take the sky out of a depth map, or put it on a backdrop behind everything: what is very far away,"
                " what Depth Anything 3 says is sky, and what a mask says."
            ),
            search_aliases=["modality forcing", "sky mask", "background", "infinity", "far plane", "remove sky"],
            inputs=[
                geometry_input(),
                io.Combo.Input(
                    "sky",
                    options=list(HANDLINGS),
                    default=HANDLINGS[0],
                    tooltip=(
                        "missing: no depth, so that clouds and meshes have no sky. far away: a flat backdrop, so that"
                        " moved cameras still see a sky, which stays where it is."
                    ),
                ),
                io.Float.Input(
                    "far",
                    default=8.0,
                    min=0.0,
                    max=1000.0,
                    step=0.5,
                    tooltip="What is farther than this many times the median depth is sky. 0: only what the mask says.",
                ),
                io.Float.Input(
                    "distance",
                    default=10.0,
                    min=1.0,
                    max=10000.0,
                    step=1.0,
                    tooltip="For far away: where the backdrop is, in depths of the farthest thing before it.",
                ),
                io.Mask.Input(
                    "sky_mask",
                    optional=True,
                    tooltip="White where there is sky or where the depth is uncertain, of a segmentation for example.",
                ),
            ],
            outputs=[geometry_output(), io.Mask.Output(display_name="sky", tooltip="White where the sky is.")],
        )

    @classmethod
    def execute(
        cls, geometry: dict[str, Any], sky: str, far: float, distance: float, sky_mask: Tensor | None = None
    ) -> io.NodeOutput:
        given = as_moge(geometry)
        maps, valid = geometry_depth(given)
        said = torch.zeros_like(valid) if sky_mask is None else match_mask(sky_mask, maps)
        if "sky" in geometry:  # of Depth Anything 3
            said = said | (geometry["sky"].cpu() >= 0.5)
        found = [
            find_sky(depth, known, far=far, sure=sure) for depth, known, sure in zip(maps, valid, said, strict=True)
        ]
        handled = [
            handle_sky(depth, known, one, sky, distance) for depth, known, one in zip(maps, valid, found, strict=True)
        ]
        depth, known = (torch.stack(parts) for parts in zip(*handled, strict=True))
        depth = torch.where(known, depth, 0.0)
        picture = given.get("image")
        shown = gray_image(torch.zeros_like(depth)) if picture is None else picture
        result = geometry_of_cameras(depth, known, shown, geometry_cameras(given, depth, 0.0))
        result |= surroundings(given)
        return io.NodeOutput(result, torch.stack(found).float().to(comfy.model_management.intermediate_device()))
