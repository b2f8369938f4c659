"""Nodes: the latents that the three tasks start from."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.latent_space import CELL
from .image_fit import fit_image, place, size_inputs
from .joint_latent import (
    DEPTH_CHANNELS,
    PER_SAMPLE,
    RGB_CHANNELS,
    Latent,
    check_size,
    depth_record,
    depth_stream,
    empty_stream,
    joint,
)

CATEGORY = "model/latent/modality forcing"


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
                    default=128,
                    min=CELL,
                    max=8192,
                    step=CELL,
                    tooltip=("Width in pixels, a multiple of 16: 128 for nano, about 512 for the released model."),
                ),
                io.Int.Input(
                    "height",
                    default=128,
                    min=CELL,
                    max=8192,
                    step=CELL,
                    tooltip=("Height in pixels, a multiple of 16: 128 for nano, about 512 for the released model."),
                ),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="How many pictures to make at once."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="Joint latent for MF Sampler or a core sampler.")],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> io.NodeOutput:
        check_size("MF Empty Latent", width, height)
        grid = (height // CELL, width // CELL)
        return io.NodeOutput(
            joint(empty_stream(batch_size, RGB_CHANNELS, *grid), empty_stream(batch_size, DEPTH_CHANNELS, *grid))
        )


class MFImageToDepthLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFImageToDepthLatent",
            display_name="MF Image to Depth Latent",
            category=CATEGORY,
            description=(
                "Start of image to depth: a joint latent that holds the picture, frozen, and depth to be made."
            ),
            search_aliases=["modality forcing", "i2d", "depth estimation", "image to depth", "vae encode"],
            inputs=[
                io.Image.Input("image", tooltip="The picture whose depth is wanted. Transparent parts become white."),
                io.Vae.Input("vae", tooltip="The model's VAE: from Load MF Model for nano, else the FLUX.2 VAE."),
                *size_inputs(),
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
        name = "MF Image to Depth Latent"
        placement = place(name, (image.shape[1], image.shape[2]), width, height, fit)
        pixels = fit_image(image, placement)
        rgb = vae.encode(pixels)
        batch, rows, columns = pixels.shape[:3]
        wanted = (batch, RGB_CHANNELS, rows // CELL, columns // CELL)
        if tuple(rgb.shape) != wanted:
            raise ValueError(
                f"{name}: the VAE gave a latent of shape {tuple(rgb.shape)}, the model wants {wanted};"
                " connect the VAE of Load MF Model or the FLUX.2 VAE."
            )
        latent = joint(rgb, empty_stream(batch, DEPTH_CHANNELS, *wanted[2:]), freeze_rgb=True)
        latent |= {"depth_valid": placement.inside(batch), "placement": placement}
        return io.NodeOutput(latent, pixels)


class MFDepthToImageLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthToImageLatent",
            display_name="MF Depth to Image Latent",
            category=CATEGORY,
            description=(
                "Start of depth to image: a joint latent that holds the depth, frozen, and a picture to be made."
            ),
            search_aliases=["modality forcing", "d2i", "depth control", "depth to image"],
            inputs=[
                io.Latent.Input("depth", tooltip="Depth stream from Encode Depth."),
                io.Int.Input(
                    "variations",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="How many pictures to make for each depth map.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="Joint latent with the depth frozen.")],
        )

    @classmethod
    def execute(cls, depth: Latent, variations: int = 1) -> io.NodeOutput:
        stream = depth_stream("MF Depth to Image Latent", depth).repeat_interleave(variations, dim=0)
        rgb = empty_stream(stream.shape[0], RGB_CHANNELS, *stream.shape[2:])
        latent = joint(rgb, stream, freeze_depth=True) | depth_record(depth)
        for name in PER_SAMPLE & latent.keys():
            latent[name] = latent[name].repeat_interleave(variations, dim=0)
        return io.NodeOutput(latent)
