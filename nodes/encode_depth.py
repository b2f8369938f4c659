"""Node: Encode Depth."""

from __future__ import annotations

from typing import Any

import comfy.model_management
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.codec import DepthError, mean_depth
from .host.depth_latent import encode_stream
from .host.geometry import DA3Geometry, Geometry, depth_of_any
from .host.image_fit import fit_depth, place
from .host.joint_latent import CATEGORY
from .host.node import Node
from .host.shared_inputs import DISPARITY, fit_inputs, meaning_inputs, valid_input


class MFEncodeDepth(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFEncodeDepth",
            display_name="Encode Depth",
            category=CATEGORY,
            description=(
                "Turn a depth map into the model's depth stream. Only proportions matter to the model; the scale is"
                " kept beside the stream, so that Depth Detokenize gives the depth back in its original unit. Pixels"
                " without depth become noise, which the model understands as unknown."
            ),
            search_aliases=["modality forcing", "metric depth", "depth latent", "disparity", "sparse depth", "lidar"],
            inputs=[
                io.MultiType.Input(
                    "depth",
                    types=[io.Image, Geometry, DA3Geometry],
                    tooltip=(
                        "Raw depth from MF Load Depth, Depth Detokenize, MoGe or Depth Anything 3, or an IMAGE (values"
                        " may go past 1)."
                    ),
                ),
                *meaning_inputs(),
                *fit_inputs(),
                io.Int.Input(
                    "fill_seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    advanced=True,
                    tooltip="Seed of the noise that stands in for pixels without depth.",
                ),
                valid_input(),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="depth",
                    tooltip="Depth stream for MF Depth to Image Latent, MF Merge Latent or MF Depth Completion.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        depth: Any,
        meaning: str,
        far_to_near: float,
        width: int,
        height: int,
        fit: str,
        fill_seed: int = 0,
        valid: Tensor | None = None,
    ) -> io.NodeOutput:
        maps, usable = depth_of_any(depth, meaning == DISPARITY, far_to_near, valid)
        placement = place(maps, width, height, fit)
        maps, usable = fit_depth(maps, usable, placement)
        try:
            stream = encode_stream(maps, usable, fill_seed)
        except DepthError as error:
            raise ValueError(f"{error}. Check the depth input, its meaning and the valid mask.") from error
        return io.NodeOutput(
            {
                "samples": stream.to(comfy.model_management.intermediate_device()),
                "depth_valid": usable,
                "depth_scale": mean_depth(maps, usable).float(),
                "placement": placement,
            }
        )
