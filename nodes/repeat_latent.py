"""Node: MF Repeat Latent."""

from __future__ import annotations

from comfy_api.latest import io

from .host.batches import repeat_pictures
from .host.joint_latent import CATEGORY, Latent
from .host.node import Node


class MFRepeatLatent(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFRepeatLatent",
            display_name="MF Repeat Latent",
            category=CATEGORY,
            description=(
                "Repeat a joint latent, or one of its streams, as a larger batch: several depth maps for one picture,"
                " or several pictures for one depth map. Each starts from its own noise."
            ),
            search_aliases=["modality forcing", "repeat batch", "duplicate latent", "clone latent", "variations"],
            inputs=[
                io.Latent.Input("latent", tooltip="Joint latent, or the rgb or depth output of MF Sampler."),
                io.Int.Input(
                    "amount", default=2, min=1, max=4096, tooltip="How many times the whole batch is repeated."
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="A latent of the same kind with the larger batch.")
            ],
        )

    @classmethod
    def execute(cls, latent: Latent, amount: int) -> io.NodeOutput:
        return io.NodeOutput(repeat_pictures(latent, amount))
