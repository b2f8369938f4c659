"""Node: MF Empty Latent."""

from __future__ import annotations

from comfy_api.latest import io

from ..mforce_core.release import DEPTH_CHANNELS, NANO_SIZE, PATCH_SIZE, RGB_CHANNELS
from .host.joint_latent import CATEGORY, check_size, empty_stream, joint


class MFEmptyLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFEmptyLatent",
            display_name="MF Empty Latent",
            category=CATEGORY,
            description=(
                "Start of text to image and depth: an empty joint latent whose two streams are both made from noise."
            ),
            search_aliases=["modality forcing", "joint latent", "rgbd latent", "empty rgb depth"],
            inputs=[
                io.Int.Input(
                    "width",
                    default=NANO_SIZE,
                    min=PATCH_SIZE,
                    max=8192,
                    step=PATCH_SIZE,
                    tooltip=("Width in pixels, a multiple of 16: 128 for nano, about 512 for the released model."),
                ),
                io.Int.Input(
                    "height",
                    default=NANO_SIZE,
                    min=PATCH_SIZE,
                    max=8192,
                    step=PATCH_SIZE,
                    tooltip=("Height in pixels, a multiple of 16: 128 for nano, about 512 for the released model."),
                ),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="How many pictures to make at once."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="Joint latent for MF Sampler or a core sampler.")],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> io.NodeOutput:
        check_size("MF Empty Latent", width, height)
        grid = (height // PATCH_SIZE, width // PATCH_SIZE)
        return io.NodeOutput(
            joint(empty_stream(batch_size, RGB_CHANNELS, *grid), empty_stream(batch_size, DEPTH_CHANNELS, *grid))
        )
