"""Node: MF Depth Map to Image."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.range import stretch
from .host.depth_pictures import COLORS, GRAY, in_colors, nearness, nearness_range
from .host.geometry import DA3Geometry, Geometry, raw_depth
from .host.node import Node
from .host.shared_inputs import distance_input, valid_input

INVERSE, LINEAR = "1 / depth", "depth"


class MFDepthToImage(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthToImage",
            display_name="MF Depth Map to Image",
            category="image/geometry estimation",
            description=(
                "Turn depth into a picture: by default a map for a depth ControlNet, or a depth pass between distances"
                " of your choice, or colors to look at."
            ),
            search_aliases=[
                "modality forcing",
                "controlnet depth",
                "disparity",
                "normalize depth",
                "depth colormap",
                "near far",
                "visualize depth",
            ],
            inputs=[
                io.MultiType.Input(
                    "depth",
                    types=[Geometry, DA3Geometry, io.Image],
                    tooltip="A geometry, or an IMAGE that holds raw depth.",
                ),
                io.Combo.Input(
                    "colors",
                    options=list(COLORS),
                    default=GRAY,
                    tooltip="gray for ControlNet and compositing, others to look at. Black where there is no depth.",
                ),
                io.Combo.Input(
                    "values",
                    options=[INVERSE, LINEAR],
                    default=INVERSE,
                    tooltip=(
                        "What is spread evenly over the range. 1 / depth shows near things in detail, as ControlNets"
                        " expect. depth gives every distance the same share of the range."
                    ),
                ),
                io.Boolean.Input(
                    "invert", default=False, tooltip="Make far bright. Otherwise near is bright, or warm in colors."
                ),
                distance_input(
                    "near", "Depth at the near end of the picture's range. 0: taken from the map, see clip_percent."
                ),
                distance_input(
                    "far", "Depth at the far end of the picture's range. 0: taken from the map, see clip_percent."
                ),
                io.Float.Input(
                    "clip_percent",
                    default=1.0,
                    min=0.0,
                    max=49.0,
                    step=0.1,
                    tooltip=(
                        "Where near or far is 0: the percentage of nearest or farthest pixels that may be clipped, so"
                        " that a few outliers do not cost the rest its contrast."
                    ),
                ),
                io.Boolean.Input(
                    "same_range",
                    default=False,
                    tooltip="Use one range for the whole batch, so that a video does not flicker; else one per map.",
                ),
                valid_input(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture of the depth."),
                io.Mask.Output(display_name="valid", tooltip="White where the depth is valid."),
            ],
        )

    @classmethod
    def execute(
        cls,
        depth: Any,
        colors: str,
        values: str,
        invert: bool,
        near: float,
        far: float,
        clip_percent: float,
        same_range: bool,
        valid: Tensor | None = None,
    ) -> io.NodeOutput:
        maps, usable = raw_depth(depth, valid)
        inverse = values == INVERSE
        limits = nearness_range(maps, usable, inverse, near, far, clip_percent, same_range)
        picture = stretch(nearness(maps, inverse), usable, limits)
        if invert:
            picture = torch.where(usable, 1.0 - picture, picture)
        device = comfy.model_management.intermediate_device()
        image = in_colors(picture, colors) * usable[..., None]
        return io.NodeOutput(image.to(device), usable.float().to(device))
