"""Node: MF Image to Depth Latent."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.release import DEPTH_CHANNELS
from .host.image_fit import fit_image, place
from .host.joint_latent import CATEGORY, empty_stream, joint
from .host.nano_parts import warn_of_unfamiliar
from .host.node import Node
from .host.picture_latent import encode_pictures
from .host.shared_inputs import fit_inputs, vae_input


class MFImageToDepthLatent(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFImageToDepthLatent",
            display_name="MF Image to Depth Latent",
            category=CATEGORY,
            description=(
                "The start of image to depth: a joint latent that holds the picture, frozen, and depth yet to be made."
            ),
            search_aliases=[
                "modality forcing",
                "flux depth",
                "video depth",
                "monocular depth",
                "i2d",
                "depth estimation",
                "image to depth",
                "vae encode",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The picture whose depth is wanted. Transparent parts become white."),
                vae_input(),
                *fit_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="Joint latent with the picture frozen."),
                io.Image.Output(
                    display_name="image",
                    tooltip="The picture at the size that is used; its pixels match those of the depth.",
                ),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, vae: Any, width: int, height: int, fit: str) -> io.NodeOutput:
        placement = place(image, width, height, fit)
        pixels = fit_image(image, placement)
        rgb = encode_pictures(vae, pixels)
        batch, _, rows, columns = rgb.shape
        warn_of_unfamiliar("MF Image to Depth Latent", vae, rgb)
        latent = joint(rgb, empty_stream(batch, DEPTH_CHANNELS, rows, columns), freeze_rgb=True)
        latent |= {"depth_valid": placement.inside(batch), "placement": placement}
        return io.NodeOutput(latent, pixels)
