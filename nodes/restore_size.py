"""Node: MF Restore Size."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.picture.placement import Placement
from .host.geometry import Geometry, geometry_depth, geometry_of_cameras, match_image
from .host.image_fit import to_rgb
from .host.joint_latent import Latent

NAME = "MF Restore Size"


class MFRestoreSize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        template = io.MatchType.Template("content", [Geometry, io.Image, io.Mask])
        return io.Schema(
            node_id="MFRestoreSize",
            display_name=NAME,
            category="image/transform",
            description=(
                "Undo the fit of MF Image to Depth Latent or Encode Depth: take the bars away and bring depth, picture"
                " or mask back to the size of the original picture, pixel by pixel. Where the fit had cut the picture,"
                " depth is not valid and pictures are black."
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
                        "The geometry of Depth Detokenize, or an IMAGE or MASK of that size. The geometry is for depth:"
                        " it is enlarged without surfaces between near and far, and its camera follows."
                    ),
                ),
                io.Latent.Input(
                    "latent",
                    tooltip="Knows the fit: the latent that the content was made from, before or after the sampler.",
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
                f"{NAME}: the latent does not know how a picture was fitted into it; connect the latent of MF Image to"
                " Depth Latent or Encode Depth, or what a sampler made of it."
            )
        if isinstance(content, dict):
            return io.NodeOutput(restore_geometry(content, placement, image))
        device = comfy.model_management.intermediate_device()
        if content.ndim == 4:
            return io.NodeOutput(restore_maps(content.movedim(-1, 1), placement).movedim(1, -1).to(device))
        masks = content.reshape(-1, 1, *content.shape[-2:])
        return io.NodeOutput(restore_maps(masks, placement)[:, 0].to(device))


def restore_maps(maps: Tensor, placement: Placement) -> Tensor:
    """Pictures or masks (B, C, H, W) of the canvas's size at the source's, within the values that they have."""
    _check_size(maps, placement)
    return placement.restore_image(maps)


def restore_geometry(geometry: dict[str, Any], placement: Placement, image: Tensor | None) -> dict[str, Any]:
    """A geometry of the canvas's size at the source's.

    Args:
        image: the source picture, in place of the geometry's own.
    """
    depth, valid = geometry_depth(NAME, geometry)
    _check_size(depth, placement)
    canvas = torch.where(valid, depth, torch.nan)
    restored = placement.restore_depth(canvas)
    known = torch.isfinite(restored)
    maps = torch.where(known, restored, torch.inf)
    if image is not None:
        picture = match_image(NAME, to_rgb(image), maps)
    else:
        picture = restore_maps(geometry["image"].cpu().movedim(-1, 1), placement).movedim(1, -1)
    if "intrinsics" not in geometry:
        return {"depth": maps, "mask": known, "image": picture}
    cameras = placement.restore_cameras(geometry["intrinsics"].float().cpu())
    return geometry_of_cameras(maps, known, picture, cameras)


def _check_size(maps: Tensor, placement: Placement) -> None:
    if tuple(maps.shape[-2:]) != placement.canvas:
        (rows, columns), (height, width) = maps.shape[-2:], placement.canvas
        raise ValueError(
            f"{NAME}: the content is {columns}x{rows}, but the latent's picture was brought to {width}x{height};"
            " connect what was decoded from this latent, at the size that it was made."
        )
