"""Node: MF Depth Ensemble."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.ensemble import combine
from .host.depth_pictures import COLORS, TURBO, in_colors
from .host.geometry import (
    DA3Geometry,
    Geometry,
    as_moge,
    geometry_cameras,
    geometry_of_cameras,
    geometry_pictures,
    raw_depth,
)
from .host.images import gray_image, match_image
from .host.node import Node
from .host.shared_inputs import geometry_output


class MFDepthEnsemble(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthEnsemble",
            display_name="MF Depth Ensemble",
            category="image/geometry estimation",
            description=(
                "Make one depth map from several of the same picture, and show where they do not agree: there, depth"
                " is not to be trusted. For the maps, repeat the latent with MF Repeat Latent before MF Sampler."
            ),
            search_aliases=[
                "modality forcing",
                "uncertainty",
                "confidence",
                "depth variance",
                "marigold ensemble",
                "median depth",
                "where not to trust",
            ],
            inputs=[
                io.MultiType.Input(
                    "depth",
                    types=[Geometry, DA3Geometry, io.Image],
                    tooltip="The maps, one after the other: a geometry, or an IMAGE that holds raw depth.",
                ),
                io.Int.Input(
                    "pictures",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip=(
                        "How many different pictures the batch holds, in turn, as MF Repeat Latent leaves them. Each"
                        " gets one map."
                    ),
                ),
                io.Float.Input(
                    "limit",
                    default=0.1,
                    min=0.001,
                    max=10.0,
                    step=0.01,
                    round=0.001,
                    tooltip=(
                        "Spread, as a part of the depth, from which on a pixel is not to be trusted: white in the mask,"
                        " the end of the colors in the picture."
                    ),
                ),
                io.Boolean.Input(
                    "align_shift",
                    default=False,
                    advanced=True,
                    tooltip=(
                        "Align the maps by an offset, too, and not in scale alone: for depth of other models that is"
                        " known up to scale and shift."
                    ),
                ),
                io.Combo.Input(
                    "colors",
                    options=list(COLORS),
                    default=TURBO,
                    tooltip="Colors of the spread.",
                ),
            ],
            outputs=[
                geometry_output(),
                io.Image.Output(display_name="spread", tooltip="How far the maps lie apart, from none to the limit."),
                io.Mask.Output(display_name="untrusted", tooltip="White where the spread is above the limit."),
                io.Image.Output(
                    display_name="raw_spread",
                    tooltip="The spread as numbers, a part of the depth, in three equal channels; 0 where unknown.",
                ),
            ],
        )

    @classmethod
    def execute(cls, depth: Any, pictures: int, limit: float, align_shift: bool, colors: str) -> io.NodeOutput:
        maps, usable = raw_depth(depth, None)
        if len(maps) % pictures:
            raise ValueError(f"{len(maps)} depth maps do not come from {pictures} pictures equally often.")
        known = torch.where(usable, maps, torch.nan)
        merged = [combine(known[picture::pictures], shift=align_shift) for picture in range(pictures)]
        median, spread = (torch.stack(parts) for parts in zip(*merged, strict=True))
        valid = ~median.isnan() & ~spread.isnan()
        spread = torch.where(valid, spread, 0.0)
        device = comfy.model_management.intermediate_device()
        outputs = (
            in_colors((spread / limit).clamp(0, 1), colors) * valid[..., None],
            ((spread > limit) | ~valid).float(),
            gray_image(spread),
        )
        geometry = _like_the_first(depth, maps, torch.where(valid, median, 1.0), valid)
        return io.NodeOutput(geometry, *(output.to(device) for output in outputs))


def _like_the_first(depth: Any, maps: Tensor, median: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """The geometry of merged maps, with camera and picture of the first map of each."""
    given = as_moge(depth) if isinstance(depth, dict) else {}
    count = len(median)
    cameras = geometry_cameras(given, maps, 0.0)[:count]
    image = geometry_pictures(given, None, len(maps))
    image = gray_image(torch.zeros_like(median)) if image is None else image[:count]
    return geometry_of_cameras(median, valid, match_image(image, median), cameras)
