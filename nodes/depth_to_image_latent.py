"""Node: MF Depth to Image Latent."""

from __future__ import annotations

from comfy_api.latest import io

from ..mforce_core.release import RGB_CHANNELS
from .host.joint_latent import CATEGORY, PER_SAMPLE, Latent, depth_record, empty_stream, joint, made_depth
from .host.node import Node


class MFDepthToImageLatent(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthToImageLatent",
            display_name="MF Depth to Image Latent",
            category=CATEGORY,
            description=(
                "The start of depth to image: a joint latent that holds the depth, frozen, and a picture yet to be"
                " made."
            ),
            search_aliases=["modality forcing", "d2i", "depth control", "depth to image"],
            inputs=[
                io.Latent.Input("depth", tooltip="Depth stream from Encode Depth."),
                io.Int.Input(
                    "variations", default=1, min=1, max=4096, tooltip="How many pictures to make per depth map."
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="Joint latent with the depth frozen.")],
        )

    @classmethod
    def execute(cls, depth: Latent, variations: int = 1) -> io.NodeOutput:
        stream = made_depth(depth).repeat_interleave(variations, dim=0)
        rgb = empty_stream(stream.shape[0], RGB_CHANNELS, *stream.shape[2:])
        latent = joint(rgb, stream, freeze_depth=True) | depth_record(depth)
        for name in PER_SAMPLE & latent.keys():
            latent[name] = latent[name].repeat_interleave(variations, dim=0)
        return io.NodeOutput(latent)
