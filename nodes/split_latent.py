"""Node: MF Split Latent."""

from __future__ import annotations

from comfy_api.latest import io

from .host.joint_latent import CATEGORY, Latent, single_streams, split
from .host.node import Node


class MFSplitLatent(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFSplitLatent",
            display_name="MF Split Latent",
            category=CATEGORY,
            description=(
                "Split the joint latent that a core sampler made into picture and depth. MF Sampler outputs the two"
                " streams itself and does not need this node."
            ),
            search_aliases=["modality forcing", "separate latent", "unbind nested latent"],
            inputs=[io.Latent.Input("latent", tooltip="Joint latent, for example from KSampler.")],
            outputs=[
                io.Latent.Output(display_name="rgb", tooltip="For VAE Decode."),
                io.Latent.Output(display_name="depth", tooltip="For Depth Detokenize."),
            ],
        )

    @classmethod
    def execute(cls, latent: Latent) -> io.NodeOutput:
        return io.NodeOutput(*single_streams(latent, *split(latent)))
