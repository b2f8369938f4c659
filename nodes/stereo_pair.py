"""Node: MF Stereo Pair."""

from __future__ import annotations

from typing import Any

import comfy.model_management
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.scene3d.stereo import CENTERED, EYES, LAYOUTS, compose
from .host.footage import footage_of
from .host.node import Node
from .host.shared_inputs import (
    BACKGROUND,
    distance_input,
    edge_softness_input,
    edge_threshold_input,
    fill_input,
    geometry_input,
    other_fov_input,
    picture_to_show_input,
)
from .host.stereo import render_eyes


class MFStereoPair(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFStereoPair",
            display_name="MF Stereo Pair",
            category="3d",
            description=(
                "A picture or a video and its depth as both eyes see it: side by side for headsets and 3D televisions,"
                " over under, or red-cyan, with masks of what was hidden, for inpainting."
            ),
            search_aliases=[
                "modality forcing",
                "stereo",
                "stereoscopic",
                "3d video",
                "sbs",
                "anaglyph",
                "vr",
                "2d to 3d",
                "parallax",
            ],
            inputs=[
                geometry_input(),
                picture_to_show_input(),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default=LAYOUTS[0],
                    tooltip=(
                        "How both eyes are put into one picture; left is left or on top. The half layouts have the size"
                        " of one picture. anaglyph: for red-cyan glasses."
                    ),
                ),
                io.Float.Input(
                    "baseline",
                    default=0.03,
                    min=0.0,
                    max=0.5,
                    step=0.005,
                    round=0.0001,
                    tooltip=(
                        "Distance between the eyes, as a fraction of the distance to the screen: 0.03 is comfortable,"
                        " more is stronger."
                    ),
                ),
                distance_input(
                    "convergence",
                    "Depth that lies on the screen; nearer things stand out of it. 0: the middle of the picture.",
                ),
                io.Combo.Input(
                    "eyes",
                    options=list(EYES),
                    default=CENTERED,
                    tooltip=(
                        "both rendered: the eyes are left and right of the camera, half of the holes each. left is the"
                        " picture: the left eye stays as it is, the right one has all the holes."
                    ),
                ),
                io.Boolean.Input("swap", default=False, tooltip="Exchange left and right, for looking cross-eyed."),
                fill_input(
                    "What the pictures show where nothing is known. background: soft colors of what lies behind."
                    " black: nothing. The masks are the same either way."
                ),
                other_fov_input(advanced=True),
                edge_threshold_input(
                    "Neighboring pixels whose depth differs by more than this fraction are torn apart.",
                    "tears nothing",
                    advanced=True,
                ),
                edge_softness_input(
                    "Width in pixels of the soft edges of depth and picture; 0 for perfectly sharp renderings."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="Both eyes in the layout."),
                io.Image.Output(display_name="left", tooltip="What the left eye sees."),
                io.Image.Output(display_name="right", tooltip="What the right eye sees."),
                io.Mask.Output(display_name="holes_left", tooltip="White where the left eye sees what was hidden."),
                io.Mask.Output(display_name="holes_right", tooltip="White where the right eye sees what was hidden."),
            ],
        )

    @classmethod
    def execute(
        cls,
        geometry: dict[str, Any],
        layout: str,
        baseline: float,
        convergence: float,
        eyes: str,
        swap: bool,
        fill: str,
        fov_degrees: float,
        edge_threshold: float,
        edge_softness: int,
        image: Tensor | None = None,
    ) -> io.NodeOutput:
        footage = footage_of(geometry, image, fov_degrees)
        pictures, holes = render_eyes(
            footage,
            baseline=baseline,
            convergence=convergence,
            eyes=eyes,
            edge_threshold=edge_threshold,
            edge_softness=edge_softness,
            fill=fill == BACKGROUND,
        )
        if swap:
            pictures, holes = pictures[::-1], holes[::-1]
        left, right = pictures
        results = (compose(left, right, layout), left, right, *holes)
        device = comfy.model_management.intermediate_device()
        return io.NodeOutput(*(result.to(device) for result in results))
