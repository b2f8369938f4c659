"""Node: MF Empty Latent."""

from __future__ import annotations

from comfy_api.latest import io

from ..mforce_core.release import DEPTH_CHANNELS, PATCH_SIZE, RGB_CHANNELS
from .host.joint_latent import CATEGORY, check_size, empty_stream, joint
from .host.node import Node
from .host.shared_inputs import size_input


class MFEmptyLatent(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFEmptyLatent",
            display_name="MF Empty Latent",
            category=CATEGORY,
            description=(
                "The start of text to image and depth: an empty joint latent, both of whose streams are made from"
                " noise."
            ),
            search_aliases=["modality forcing", "joint latent", "rgbd latent", "empty rgb depth"],
            inputs=[
                size_input("width", "in pixels"),
                size_input("height", "in pixels"),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="How many pictures to make at once."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="Joint latent for MF Sampler or a core sampler.")],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> io.NodeOutput:
        check_size(width, height)
        rgb, depth = (
            empty_stream(batch_size, channels, height // PATCH_SIZE, width // PATCH_SIZE)
            for channels in (RGB_CHANNELS, DEPTH_CHANNELS)
        )
        return io.NodeOutput(joint(rgb, depth))
