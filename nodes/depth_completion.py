"""Node: MF Depth Completion."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..mforce_core.release import PATCH_SIZE
from .host.correction import Correction
from .host.depth_latent import decode_stream
from .host.joint_latent import Latent, depth_record, depth_stream, split
from .host.joint_model import check_joint
from .host.node import Node


class MFDepthCompletion(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthCompletion",
            display_name="MF Depth Completion",
            category="model/patch",
            description=(
                "Make depth that agrees with measurements: sparse points from LiDAR or structure from motion, or a"
                " depth map with holes. The measurements correct every step of the sampler."
            ),
            search_aliases=[
                "modality forcing",
                "metric depth",
                "sparse depth",
                "lidar",
                "depth inpainting",
                "fill depth",
                "densify",
            ],
            inputs=[
                io.Model.Input("model", tooltip="From Load MF Model or MF Tilt."),
                io.Latent.Input(
                    "latent",
                    tooltip="MF Image to Depth Latent of the picture that was measured, or MF Empty Latent.",
                ),
                io.Latent.Input(
                    "depth",
                    tooltip="The measurements: Encode Depth with the same width, height and fit as the picture.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model, guided by the measurements, for MF Sampler or a core sampler."),
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The latent to sample. Depth Detokenize gives its depth in the unit of the measurements.",
                ),
            ],
        )

    @classmethod
    def execute(cls, model: Any, latent: Latent, depth: Latent) -> io.NodeOutput:
        check_joint(model)
        target, measured = split(latent)[1], depth_stream(depth)
        if measured.shape[2:] != target.shape[2:]:
            sizes = [f"{PATCH_SIZE * part.shape[3]}x{PATCH_SIZE * part.shape[2]}" for part in (measured, target)]
            raise ValueError(f"the measurements are {sizes[0]}, the latent is {sizes[1]}; encode both the same way.")
        if measured.shape[0] not in (1, target.shape[0]):
            raise ValueError(
                f"there are {measured.shape[0]} maps of measurements for {target.shape[0]} latents; connect one map, or"
                " one per latent."
            )
        guided = model.clone()
        guided.set_model_sampler_post_cfg_function(Correction(*decode_stream(measured, depth)))
        unit = {name: value for name, value in depth_record(depth).items() if name == "depth_scale"}
        return io.NodeOutput(guided, {**latent, **unit})
