"""Node: Encode Depth."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.codec import DepthError, mean_depth
from .host.depth_latent import encode_stream
from .host.geometry import DA3Geometry, Geometry, gray, match_mask, opaque, raw_depth
from .host.image_fit import fit_depth, place, size_inputs

NAME = "Encode Depth"
DEPTH, DISPARITY = "depth (far is bright)", "disparity (near is bright)"


class MFEncodeDepth(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFEncodeDepth",
            display_name=NAME,
            category="model/latent/modality forcing",
            description=(
                "Turn a depth map into the model's depth stream. To the model only proportions matter; the scale is"
                " kept beside the stream, so that Depth Detokenize gives depth back in the unit in which it came."
                " Pixels without depth become noise, which the model understands as unknown."
            ),
            search_aliases=["modality forcing", "depth latent", "disparity", "sparse depth", "lidar"],
            inputs=[
                io.MultiType.Input(
                    "depth",
                    types=[io.Image, Geometry, DA3Geometry],
                    tooltip=(
                        "Raw depth from MF Load Depth, Depth Detokenize, MoGe or Depth Anything 3, or an IMAGE (values"
                        " may go past 1)."
                    ),
                ),
                io.Combo.Input(
                    "meaning",
                    options=[DEPTH, DISPARITY],
                    default=DEPTH,
                    tooltip=(
                        "What bright means in an IMAGE. Depth: far is bright and black is unknown. Disparity,"
                        " as ControlNet depth maps have it: near is bright and black is far. Not used for raw"
                        " depth."
                    ),
                ),
                io.Float.Input(
                    "far_to_near",
                    default=10.0,
                    min=1.1,
                    max=1000.0,
                    step=0.5,
                    tooltip=(
                        "For disparity only: how many times farther black is than white. Disparity maps that"
                        " were stretched to 0..1 do not say it."
                    ),
                ),
                *size_inputs(),
                io.Int.Input(
                    "fill_seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    advanced=True,
                    tooltip="Seed of the noise that stands for pixels without depth.",
                ),
                io.Mask.Input(
                    "valid",
                    optional=True,
                    tooltip="White where the depth is known. Without it every positive, finite pixel counts.",
                ),
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
        if meaning == DISPARITY and not isinstance(depth, dict):
            maps, usable = _from_disparity(depth, far_to_near)
            if valid is not None:
                usable = usable & match_mask(NAME, valid, maps)
        else:
            maps, usable = raw_depth(NAME, depth, valid)
        placement = place(NAME, (maps.shape[1], maps.shape[2]), width, height, fit)
        maps, usable = fit_depth(maps, usable, placement)
        try:
            stream = encode_stream(maps, usable, fill_seed)
        except DepthError as error:
            raise ValueError(f"{NAME}: {error}. Check the depth input, its meaning and the valid mask.") from error
        return io.NodeOutput(
            {
                "samples": stream.to(comfy.model_management.intermediate_device()),
                "depth_valid": usable,
                "depth_scale": mean_depth(maps, usable).float(),
                "placement": placement,
            }
        )


def _from_disparity(image: Tensor, far_to_near: float) -> tuple[Tensor, Tensor]:
    """A disparity IMAGE (B, H, W, C) as depth (B, H, W), 1 where it is white, and its usable pixels; on the CPU."""
    near = gray(image).cpu()
    usable = torch.isfinite(near) & opaque(image).cpu()
    near = torch.where(usable, near, torch.zeros_like(near)).clamp(min=0)
    near = near / near.amax((1, 2), keepdim=True).clamp(min=1e-12)
    floor = 1.0 / far_to_near
    return 1.0 / (near * (1.0 - floor) + floor), usable
