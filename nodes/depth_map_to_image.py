"""Node: MF Depth Map to Image."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy.ldm.colormap import turbo
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.colormaps import COLORMAPS, colorize
from ..mforce_core.depth.range import percentile_range, stretch
from .host.geometry import DA3Geometry, Geometry, distance_input, raw_depth

NAME = "MF Depth Map to Image"
GRAY, TURBO = "gray", "turbo"
INVERSE, LINEAR = "1 / depth", "depth"


class MFDepthToImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthToImage",
            display_name=NAME,
            category="image/geometry estimation",
            description=(
                "Turn depth into a picture: a map for a depth ControlNet as it is, a depth pass between distances of"
                " your choice, or colors to look at."
            ),
            search_aliases=[
                "modality forcing",
                "controlnet depth",
                "disparity",
                "normalize depth",
                "depth colormap",
                "near far",
                "visualize depth",
            ],
            inputs=[
                io.MultiType.Input(
                    "depth",
                    types=[Geometry, DA3Geometry, io.Image],
                    tooltip="A geometry, or an IMAGE that holds raw depth.",
                ),
                io.Combo.Input(
                    "colors",
                    options=[GRAY, TURBO, *COLORMAPS],
                    default=GRAY,
                    tooltip="gray for ControlNet and compositing, others to look at. Black where there is no depth.",
                ),
                io.Combo.Input(
                    "values",
                    options=[INVERSE, LINEAR],
                    default=INVERSE,
                    tooltip=(
                        "What grows evenly in the picture. 1 / depth shows near things in detail, as ControlNets expect"
                        " it. depth gives every distance the same room."
                    ),
                ),
                io.Boolean.Input(
                    "invert", default=False, tooltip="Make far bright. Otherwise near is bright, or warm in colors."
                ),
                distance_input(
                    "near", "Depth at the near end of the picture's range. 0: from the map, see clip_percent."
                ),
                distance_input(
                    "far", "Depth at the far end of the picture's range. 0: from the map, see clip_percent."
                ),
                io.Float.Input(
                    "clip_percent",
                    default=1.0,
                    min=0.0,
                    max=49.0,
                    step=0.1,
                    tooltip=(
                        "Where near or far is 0: so many percent of the pixels, the nearest and the farthest, may be"
                        " cut off, so that a few stray ones do not take the contrast away."
                    ),
                ),
                io.Boolean.Input(
                    "same_range",
                    default=False,
                    tooltip="One range for the whole batch, so that a video does not flicker; else one for each map.",
                ),
                io.Mask.Input(
                    "valid",
                    optional=True,
                    tooltip="White where the depth is known. Without it every positive, finite pixel counts.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture of the depth."),
                io.Mask.Output(display_name="valid", tooltip="White where the depth is valid."),
            ],
        )

    @classmethod
    def execute(
        cls,
        depth: Any,
        colors: str,
        values: str,
        invert: bool,
        near: float,
        far: float,
        clip_percent: float,
        same_range: bool,
        valid: Tensor | None = None,
    ) -> io.NodeOutput:
        maps, usable = raw_depth(NAME, depth, valid)
        if near and far and near >= far:
            raise ValueError(f"{NAME}: near is {near:g} and far is {far:g}; far must be the larger one, or 0.")

        # Larger is nearer from here on.
        def nearness(distance: Tensor) -> Tensor:
            return 1.0 / distance if values == INVERSE else -distance

        scene = torch.where(usable, nearness(maps), torch.zeros_like(maps))
        limits = percentile_range(scene, usable, clip_percent, together=same_range).clone()
        for end, distance in enumerate((far, near)):
            if distance:
                limits[:, end] = nearness(torch.tensor(distance))
        if near or far:
            flat = usable.any(2).any(1) & (limits[:, 0] >= limits[:, 1])
            if flat.any():
                index = int(flat.nonzero()[0])
                nearest, farthest = torch.aminmax(maps[index][usable[index]])
                raise ValueError(
                    f"{NAME}: depth map {index} goes from {nearest:g} to {farthest:g} and lies wholly beyond near or"
                    " far; set them by that, or both to 0."
                )
        picture = stretch(scene, usable, limits)
        if invert:
            picture = torch.where(usable, 1.0 - picture, picture)
        rgb = _in_colors(picture, colors) * usable[..., None]
        device = comfy.model_management.intermediate_device()
        return io.NodeOutput(rgb.to(device), usable.float().to(device))


def _in_colors(picture: Tensor, colors: str) -> Tensor:
    """(..., 3) of values in [0, 1]."""
    if colors == GRAY:
        return picture[..., None].expand(*picture.shape, 3)
    if colors == TURBO:
        return turbo(picture)
    return torch.from_numpy(colorize(picture.numpy(), colors))
