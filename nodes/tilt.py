"""Node: MF Tilt."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..mforce_core.release import LOG2_ALPHA
from .host.joint_model import JointModelSampling, check_joint

NAME = "MF Tilt"


class MFTilt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFTilt",
            display_name=NAME,
            category="model/patch",
            description=(
                "Decide which stream leads when a core sampler makes a picture and its depth together. MF Sampler has"
                " this setting itself."
            ),
            search_aliases=["modality forcing", "log2 alpha", "joint schedule", "depth first", "rgb first"],
            inputs=[
                io.Model.Input("model", tooltip="From Load MF Model."),
                io.Float.Input(
                    "tilt",
                    default=LOG2_ALPHA,
                    min=-10.0,
                    max=10.0,
                    step=0.5,
                    round=0.01,
                    tooltip=(
                        "Above 0 the picture is finished first and its depth is cleaner, 0 makes both together, below 0"
                        " depth leads. The noise levels' odds differ by 2^tilt. Not used where one stream is given."
                    ),
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with this tilt, for KSampler and the other core samplers.")],
        )

    @classmethod
    def execute(cls, model: Any, tilt: float) -> io.NodeOutput:
        check_joint(NAME, model)
        tilted = model.clone()
        sampling = JointModelSampling(model.model.diffusion_model.schedule, tilt)
        tilted.add_object_patch("model_sampling", sampling)
        return io.NodeOutput(tilted)
