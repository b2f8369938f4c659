"""Node: MF Restore Size."""

from __future__ import annotations

from typing import Any

import comfy.model_management
from comfy_api.latest import io
from einops import rearrange
from torch import Tensor

from .host.geometry import DA3Geometry, Geometry
from .host.joint_latent import Latent
from .host.node import Node
from .host.restoring import restore_geometry, restore_image


class MFRestoreSize(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        template = io.MatchType.Template("content", [Geometry, DA3Geometry, io.Image, io.Mask])
        return io.Schema(
            node_id="MFRestoreSize",
            display_name="MF Restore Size",
            category="image/transform",
            description=(
                "Undo the fit of MF Image to Depth Latent or Encode Depth: remove the bars and bring depth, picture or"
                " mask back to the size of the original picture, pixel for pixel. Where the fit had cropped the"
                " picture, depth is not valid and pictures are black."
            ),
            search_aliases=[
                "modality forcing",
                "unletterbox",
                "remove bars",
                "original size",
                "upscale depth",
                "uncrop",
                "resize depth",
            ],
            inputs=[
                io.MatchType.Input(
                    "content",
                    template=template,
                    tooltip=(
                        "The geometry of Depth Detokenize, or an IMAGE or MASK of the same size. For depth use the"
                        " geometry: it is enlarged without surfaces between near and far, and its camera follows."
                    ),
                ),
                io.Latent.Input(
                    "latent",
                    tooltip="Remembers the fit: the latent that the content was made from, before or after sampling.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="For a geometry: the original picture, for sharp colors of point clouds and meshes.",
                ),
            ],
            outputs=[
                io.MatchType.Output(
                    template=template, display_name="content", tooltip="The same at the original picture's size."
                )
            ],
        )

    @classmethod
    def execute(cls, content: Any, latent: Latent, image: Tensor | None = None) -> io.NodeOutput:
        placement = latent.get("placement")
        if placement is None:
            raise ValueError(
                "the latent does not know how a picture was fitted into it; connect the latent of MF Image to Depth"
                " Latent or Encode Depth, or what a sampler made from it."
            )
        if isinstance(content, dict):
            return io.NodeOutput(restore_geometry(content, placement, image))
        device = comfy.model_management.intermediate_device()
        if content.ndim == 4:
            restored = restore_image(rearrange(content, "b h w c -> b c h w"), placement)
            return io.NodeOutput(rearrange(restored, "b c h w -> b h w c").to(device))
        masks = content.reshape(-1, 1, *content.shape[-2:])
        return io.NodeOutput(restore_image(masks, placement)[:, 0].to(device))
