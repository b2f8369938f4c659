"""Node: MF Latent From Batch."""

from __future__ import annotations

from comfy_api.latest import io

from .host.batches import take_pictures
from .host.joint_latent import CATEGORY, Latent
from .host.node import Node


class MFLatentFromBatch(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFLatentFromBatch",
            display_name="MF Latent From Batch",
            category=CATEGORY,
            description=(
                "Take pictures out of a batch: from a joint latent, or from one of its streams. Masks, what is known"
                " about the depth, and the seeds of the pictures go with them."
            ),
            search_aliases=["modality forcing", "select from batch", "pick latent", "batch subset", "slice batch"],
            inputs=[
                io.Latent.Input("latent", tooltip="Joint latent, or the rgb or depth output of MF Sampler."),
                io.Int.Input(
                    "start",
                    default=0,
                    min=-4096,
                    max=4095,
                    tooltip="The first picture to take, counted from 0; -1 is the last one.",
                ),
                io.Int.Input(
                    "length", default=1, min=1, max=4096, tooltip="How many to take, or as many as there are."
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="A latent of the same kind with these pictures.")],
        )

    @classmethod
    def execute(cls, latent: Latent, start: int, length: int) -> io.NodeOutput:
        return io.NodeOutput(take_pictures(latent, start, length))
