"""Node: MF Depth Completion."""

from __future__ import annotations

import math
from typing import Any

import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.codec import contract, expand
from ..mforce_core.depth.completion import complete_depth
from ..mforce_core.model.tokens import latents_to_patches, patches_to_latents, patchify, unpatchify
from .host.depth_latent import decode_stream
from .host.joint_latent import Latent, depth_record, depth_stream, split
from .host.joint_model import check_joint

NAME = "MF Depth Completion"

# Contracted depth that a prediction is held within before it is corrected: 2 is infinitely far.
_NEAREST, _FARTHEST = 0.01, 1.98


class MFDepthCompletion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthCompletion",
            display_name=NAME,
            category="model/patch",
            description=(
                "Make depth that agrees with measurements: sparse points of a LiDAR, of structure from motion, or a"
                " depth map with holes. Every step of the sampler is corrected by them."
            ),
            search_aliases=["modality forcing", "sparse depth", "lidar", "depth inpainting", "fill depth", "densify"],
            inputs=[
                io.Model.Input("model", tooltip="From Load MF Model or MF Tilt."),
                io.Latent.Input(
                    "latent",
                    tooltip="MF Image to Depth Latent of the picture that was measured, or MF Empty Latent.",
                ),
                io.Latent.Input(
                    "depth", tooltip="The measurements: Encode Depth at the same width, height and fit as the picture."
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model, led by the measurements, for MF Sampler or a core sampler."),
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The latent to sample; Depth Detokenize gives its depth in the unit of the measurements.",
                ),
            ],
        )

    @classmethod
    def execute(cls, model: Any, latent: Latent, depth: Latent) -> io.NodeOutput:
        check_joint(NAME, model)
        target, stream = split(NAME, latent)[1], depth_stream(NAME, depth)
        if stream.shape[2:] != target.shape[2:]:
            sizes = [f"{16 * part.shape[3]}x{16 * part.shape[2]}" for part in (stream, target)]
            raise ValueError(f"{NAME}: the measurements are {sizes[0]}, the latent is {sizes[1]}; encode both alike.")
        if stream.shape[0] not in (1, target.shape[0]):
            raise ValueError(
                f"{NAME}: there are {stream.shape[0]} maps of measurements for {target.shape[0]} latents; give one, or"
                " one for each."
            )
        guided = model.clone()
        guided.set_model_sampler_post_cfg_function(Correction(*decode_stream(stream, depth)))
        record = {name: value for name, value in depth_record(depth).items() if name == "depth_scale"}
        return io.NodeOutput(guided, {**latent, **record})


class Correction:
    """A post-CFG function that corrects the depth of every prediction.

    Args:
        known: measured depth (B or 1, H, W) in the depth stream's unit.
        valid: (B or 1, H, W) bool.
    """

    def __init__(self, known: Tensor, valid: Tensor) -> None:
        self.known, self.valid = known, valid

    def __call__(self, args: dict[str, Any]) -> Tensor:
        clean, model = args["denoised"], args["model"]
        rgb, carried = comfy.utils.unpack_latents(clean, model.latent_shapes)
        known, valid = self.known.to(clean.device), self.valid.to(clean.device)
        maps = unpatchify(latents_to_patches(model.run.alpha * carried).float())
        corrected = complete_depth(expand(maps.clamp(_NEAREST, _FARTHEST)), known, valid)
        stream = patches_to_latents(patchify(contract(corrected), math.isqrt(carried.shape[1])))
        return comfy.utils.pack_latents([rgb, (stream / model.run.alpha).to(carried)])[0]
