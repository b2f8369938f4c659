"""Node: MF Depth of Field."""

from __future__ import annotations

from typing import Any

import comfy.model_management
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.scene3d.lens_effects import depth_of_field
from .host.footage import footage_of, frames_of
from .host.node import Node
from .host.progress import Advance
from .host.shared_inputs import distance_input, geometry_input, picture_to_show_input


class MFDepthOfField(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthOfField",
            display_name="MF Depth of Field",
            category="image/filters",
            description=(
                "Blur a picture by its depth, as a lens does that is focused at one distance. The blur is computed in"
                " linear light, so that lights become bright discs."
            ),
            search_aliases=["modality forcing", "bokeh", "lens blur", "focus", "defocus", "tilt shift", "rack focus"],
            inputs=[
                geometry_input(),
                picture_to_show_input(),
                distance_input("focus", "Depth that is sharp. 0: that of the place below."),
                _place("focus_x", "from the left"),
                _place("focus_y", "from the top"),
                io.Float.Input(
                    "strength",
                    default=0.02,
                    min=0.0,
                    max=0.5,
                    step=0.002,
                    round=0.0001,
                    tooltip=(
                        "The aperture: size of the disc that a point endlessly far away becomes, as a fraction of the"
                        " picture's width."
                    ),
                ),
                io.Float.Input(
                    "largest",
                    default=0.08,
                    min=0.0,
                    max=0.5,
                    step=0.005,
                    round=0.0001,
                    tooltip="Largest disc, as a fraction of the width; things close to the lens have the largest.",
                    advanced=True,
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture with a focus.")],
        )

    @classmethod
    def execute(
        cls,
        geometry: dict[str, Any],
        focus: float,
        focus_x: float,
        focus_y: float,
        strength: float,
        largest: float,
        image: Tensor | None = None,
    ) -> io.NodeOutput:
        footage = footage_of(geometry, image)
        device = comfy.model_management.get_torch_device()

        def frame(depth: Tensor, valid: Tensor, picture: Tensor, advance: Advance) -> Tensor:
            sharp = focus or _depth_at(depth, valid, focus_x, focus_y)
            on_device = (one.to(device) for one in (picture, depth, valid))
            seen = depth_of_field(*on_device, focus=sharp, strength=strength, largest=largest, advance=advance)
            return seen.cpu()

        return io.NodeOutput(frames_of(footage, frame).to(comfy.model_management.intermediate_device()))


def _depth_at(depth: Tensor, valid: Tensor, x: float, y: float) -> float:
    """Median depth of the valid pixels around a place, of all where there are none."""
    height, width = depth.shape
    rows, columns = (
        slice(max(0, int(place * side) - side // 50), int(place * side) + side // 50 + 1)
        for place, side in ((y, height), (x, width))
    )
    near = depth[rows, columns][valid[rows, columns]]
    return float((near if len(near) else depth[valid]).median())


def _place(name: str, origin: str) -> io.Input:
    return io.Float.Input(
        name,
        default=0.5,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip=f"Where to focus if focus is 0, {origin}: 0.5 is the middle.",
    )
