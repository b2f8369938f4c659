"""Node: MF Restore Size."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate

from ..mforce_core.depth.resampling import enlarge_depth
from .host.geometry import Geometry, geometry_depth, geometry_of_cameras, match_image
from .host.image_fit import Placement, to_rgb
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
    inner = placement.without_bars(maps).float()
    if inner.shape[-2:] != placement.crop[2:]:
        low, high = torch.aminmax(inner)
        inner = interpolate(inner, placement.crop[2:], mode="bicubic", antialias=True).clamp(low, high)
    return placement.uncut(inner, 0.0)


def restore_geometry(geometry: dict[str, Any], placement: Placement, image: Tensor | None) -> dict[str, Any]:
    """A geometry of the canvas's size at the source's.

    Args:
        image: the source picture, in place of the geometry's own.
    """
    depth, valid = geometry_depth(NAME, geometry)
    _check_size(depth, placement)
    canvas = torch.where(valid, depth, torch.nan)
    restored = placement.uncut(enlarge_depth(placement.without_bars(canvas), placement.crop[2:]), torch.nan)
    known = torch.isfinite(restored)
    maps = torch.where(known, restored, torch.inf)
    if image is not None:
        picture = match_image(NAME, to_rgb(image), maps)
    else:
        picture = restore_maps(geometry["image"].cpu().movedim(-1, 1), placement).movedim(1, -1)
    if "intrinsics" not in geometry:
        return {"depth": maps, "mask": known, "image": picture}
    cameras = restore_cameras(geometry["intrinsics"].float().cpu(), placement)
    return geometry_of_cameras(maps, known, picture, cameras)


def restore_cameras(intrinsics: Tensor, placement: Placement) -> Tensor:
    """Normalized intrinsics (B, 3, 3) of the canvas for the source picture, which has square pixels.

    Where the fit changed the picture's proportions, a camera with square pixels was assumed for the stretched one; its
    field of view across is kept.
    """
    (rows, columns), (top, left, height, width) = placement.source, placement.crop
    left_bar, _, top_bar, _ = placement.bars
    wide, high = width / placement.size[1], height / placement.size[0]  # source pixels in one of the canvas
    in_pixels = intrinsics * intrinsics.new_tensor([placement.canvas[1], placement.canvas[0], 1.0])[:, None]
    restored = intrinsics.clone()
    restored[:, 0, 0] = in_pixels[:, 0, 0] * wide / columns
    restored[:, 1, 1] = in_pixels[:, 1, 1] * wide / rows
    restored[:, 0, 2] = ((in_pixels[:, 0, 2] - left_bar) * wide + left) / columns
    restored[:, 1, 2] = ((in_pixels[:, 1, 2] - top_bar) * high + top) / rows
    return restored


def _check_size(maps: Tensor, placement: Placement) -> None:
    if tuple(maps.shape[-2:]) != placement.canvas:
        (rows, columns), (height, width) = maps.shape[-2:], placement.canvas
        raise ValueError(
            f"{NAME}: the content is {columns}x{rows}, but the latent's picture was brought to {width}x{height};"
            " connect what was decoded from this latent, at the size that it was made."
        )
