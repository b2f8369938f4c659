"""Node: Encode Depth."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate

from ..mforce_core.depth_codec import DepthError, encode_depth, fill_missing
from .geometry import Geometry, geometry_depth
from .image_fit import fit_depth, place, size_inputs
from .joint_latent import CELL

NAME = "Encode Depth"
DEPTH, DISPARITY = "depth (far is bright)", "disparity (near is bright)"


class MFEncodeDepth(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFEncodeDepth",
            display_name=NAME,
            category="model/latent/modality forcing",
            description=(
                "Turn a depth map into the model's depth stream. Only proportions matter: the scale of the "
                "depth is dropped. Pixels without depth become noise, which the model understands as unknown."
            ),
            search_aliases=["modality forcing", "depth latent", "disparity", "sparse depth", "lidar"],
            inputs=[
                io.MultiType.Input(
                    "depth",
                    types=[io.Image, Geometry],
                    tooltip="An IMAGE (values may go past 1), or raw depth from Depth Detokenize or MoGe.",
                ),
                io.Combo.Input(
                    "meaning",
                    options=[DEPTH, DISPARITY],
                    default=DEPTH,
                    tooltip=(
                        "What bright means in an IMAGE. Depth: far is bright and black is unknown. Disparity,"
                        " as ControlNet depth maps have it: near is bright and black is far. Not used for raw"
                        " depth."
                    ),
                ),
                io.Float.Input(
                    "far_to_near",
                    default=10.0,
                    min=1.1,
                    max=1000.0,
                    step=0.5,
                    tooltip=(
                        "For disparity only: how many times farther black is than white. Disparity maps that"
                        " were stretched to 0..1 do not say it."
                    ),
                ),
                *size_inputs(),
                io.Int.Input(
                    "fill_seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    advanced=True,
                    tooltip="Seed of the noise that stands for pixels without depth.",
                ),
                io.Mask.Input(
                    "valid",
                    optional=True,
                    tooltip="White where the depth is known. Without it every positive, finite pixel counts.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="depth", tooltip="Depth stream for MF Depth to Image Latent.")],
        )

    @classmethod
    def execute(
        cls,
        depth: Any,
        meaning: str,
        far_to_near: float,
        width: int,
        height: int,
        fit: str,
        fill_seed: int = 0,
        valid: Tensor | None = None,
    ) -> io.NodeOutput:
        if isinstance(depth, dict):
            maps, usable = geometry_depth(NAME, depth)
        else:
            maps, usable = _image_depth(depth, meaning, far_to_near)
        if valid is not None:
            usable = usable & _match(valid, maps)
        placement = place(NAME, (maps.shape[1], maps.shape[2]), width, height, fit)
        maps, usable = fit_depth(maps, usable, placement)
        try:
            tokens = encode_depth(maps, usable, patch_size=CELL)
        except DepthError as error:
            raise ValueError(f"{NAME}: {error}. Check the depth input, its meaning and the valid mask.") from error
        noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(fill_seed))
        stream = fill_missing(tokens, noise).movedim(-1, 1).to(comfy.model_management.intermediate_device())
        return io.NodeOutput({"samples": stream.contiguous(), "depth_valid": usable})


def _image_depth(image: Tensor, meaning: str, far_to_near: float) -> tuple[Tensor, Tensor]:
    """IMAGE (B, H, W, C) to depth (B, H, W) and its valid pixels; transparent pixels are not valid."""
    grey = image[..., : 1 if image.shape[-1] < 3 else 3].float().mean(-1)
    usable = torch.isfinite(grey)
    if image.shape[-1] in (2, 4):
        usable &= image[..., -1] > 0.5
    if meaning == DEPTH:
        return grey, usable & (grey > 0)
    near = torch.where(usable, grey, torch.zeros_like(grey)).clamp(min=0)
    near = near / near.amax((1, 2), keepdim=True).clamp(min=1e-12)
    floor = 1.0 / far_to_near
    return 1.0 / (near * (1.0 - floor) + floor), usable


def _match(mask: Tensor, maps: Tensor) -> Tensor:
    """MASK (B or 1, H', W') as bool of the maps' shape (B, H, W)."""
    mask = mask.reshape(-1, *mask.shape[-2:])
    if mask.shape[0] not in (1, maps.shape[0]):
        raise ValueError(
            f"{NAME}: there are {mask.shape[0]} valid masks for {maps.shape[0]} depth maps; give one, or one for each."
        )
    if mask.shape[-2:] != maps.shape[-2:]:
        mask = interpolate(mask[:, None].float(), maps.shape[-2:], mode="nearest-exact")[:, 0]
    return (mask > 0.5).expand(maps.shape).to(maps.device)
