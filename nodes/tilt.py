"""Node: MF Tilt."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host.joint_model import check_joint
from .host.node import Node
from .host.noise_levels import JointModelSampling
from .host.shared_inputs import tilt_input


class MFTilt(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFTilt",
            display_name="MF Tilt (which stream leads)",
            category="model/patch",
            description=(
                "Choose which stream leads when a core sampler makes a picture and its depth together. MF Sampler has"
                " this setting itself."
            ),
            search_aliases=["modality forcing", "log2 alpha", "joint schedule", "depth first", "rgb first"],
            inputs=[
                io.Model.Input("model", tooltip="From Load MF Model."),
                tilt_input(
                    "Above 0 the picture is finished first and its depth is cleaner, 0 makes both together, below 0"
                    " depth leads. The odds of the two noise levels differ by 2^tilt. Not used if one stream is given."
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with this tilt, for KSampler and the other core samplers.")],
        )

    @classmethod
    def execute(cls, model: Any, tilt: float) -> io.NodeOutput:
        check_joint(model)
        tilted = model.clone()
        tilted.add_object_patch("model_sampling", JointModelSampling(model.model.diffusion_model.schedule, tilt))
        return io.NodeOutput(tilted)
