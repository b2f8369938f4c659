"""Node: MF Fog."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.scene3d.lens_effects import fog
from .host.footage import footage_of, frames_of
from .host.node import Node
from .host.progress import Advance
from .host.shared_inputs import distance_input, geometry_input, picture_to_show_input


class MFFog(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFFog",
            display_name="MF Fog",
            category="image/filters",
            description=(
                "Even fog or haze by depth, in linear light. Pixels without depth count as sky and are all fog; a video"
                " keeps its fog if half_distance is set."
            ),
            search_aliases=["modality forcing", "haze", "mist", "atmosphere", "depth fog", "aerial perspective"],
            inputs=[
                geometry_input(),
                picture_to_show_input(),
                io.Color.Input("color", default="#c8d0d8", tooltip="Color of the fog."),
                distance_input("start", "Depth at which the fog begins. 0: at the camera."),
                distance_input(
                    "half_distance",
                    "Distance in which fog takes half of what is seen, in the depth's unit. 0: the median depth.",
                ),
                io.Float.Input(
                    "density",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    tooltip="Thickness: 2 halves the distance of sight. 0 is clear air.",
                ),
                io.Float.Input(
                    "most",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the fog where it is thickest; below 1, the sky shows through.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture in fog.")],
        )

    @classmethod
    def execute(
        cls,
        geometry: dict[str, Any],
        color: str,
        start: float,
        half_distance: float,
        density: float,
        most: float,
        image: Tensor | None = None,
    ) -> io.NodeOutput:
        footage = footage_of(geometry, image)
        tint = _rgb(color)

        def frame(depth: Tensor, valid: Tensor, picture: Tensor, _advance: Advance) -> Tensor:
            if density == 0:
                return picture
            half = (half_distance or float(depth[valid].median())) / density
            return fog(picture, depth, valid, color=tint, start=start, half=half, most=most)

        return io.NodeOutput(frames_of(footage, frame).to(comfy.model_management.intermediate_device()))


def _rgb(color: str) -> Tensor:
    """(3,) in [0, 1] of "#rrggbb".

    Raises:
        ValueError: it is written otherwise.
    """
    digits = color.lstrip("#")
    try:
        levels = bytes.fromhex(digits)
    except ValueError:
        levels = b""
    if len(levels) != 3:
        raise ValueError(f"color is {color[:20]!r}; write it as #rrggbb.")
    return torch.tensor(list(levels)) / 255.0
