"""Node: MF Merge Latent."""

from __future__ import annotations

from comfy_api.latest import io

from .host.joint_latent import CATEGORY, Latent
from .host.latent_merge import merge_latents
from .host.node import Node


class MFMergeLatent(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFMergeLatent",
            display_name="MF Merge Latent",
            category=CATEGORY,
            description=(
                "Combine a picture's latent and a depth stream into a joint latent, for image to image, depth to depth"
                " and inpainting. A stream that is not connected starts from noise."
            ),
            search_aliases=["modality forcing", "join latent", "combine latent", "img2img", "inpaint", "nested latent"],
            inputs=[
                io.Latent.Input(
                    "rgb",
                    optional=True,
                    tooltip=(
                        "Latent of the picture: VAE Encode, Latent Upscale, Set Latent Noise Mask, MF Split Latent..."
                    ),
                ),
                io.Latent.Input(
                    "depth",
                    optional=True,
                    tooltip=(
                        "Depth stream: Encode Depth, MF Sampler, MF Split Latent. If its size differs from the"
                        " picture's, it is resized as a depth map."
                    ),
                ),
                io.Boolean.Input(
                    "keep_rgb", default=False, tooltip="Keep the picture as it is and make depth for it (i2d)."
                ),
                io.Boolean.Input(
                    "keep_depth", default=False, tooltip="Keep the depth as it is and make a picture for it (d2i)."
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip=(
                        "Joint latent. Noise masks of the inputs stay with their streams; a connected stream without a"
                        " mask follows the other's."
                    ),
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        rgb: Latent | None = None,
        depth: Latent | None = None,
        keep_rgb: bool = False,
        keep_depth: bool = False,
    ) -> io.NodeOutput:
        for name, given, kept in (("rgb", rgb, keep_rgb), ("depth", depth, keep_depth)):
            if kept and given is None:
                raise ValueError(f"keep_{name} is on, but nothing is connected to {name}.")
        if keep_rgb and keep_depth:
            raise ValueError("keep_rgb and keep_depth are both on, which leaves nothing to make.")
        if rgb is None and depth is None:
            raise ValueError("connect rgb, depth or both; to start without either, use MF Empty Latent.")
        return io.NodeOutput(merge_latents(rgb, depth, keep_rgb=keep_rgb, keep_depth=keep_depth))
