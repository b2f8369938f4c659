"""Prompts for a part of the picture, as core's conditioning nodes write them, on the packed joint latent.

Core crops a latent to a prompt's area and weighs what the model says there by its mask. A packed latent (B, 1, L) has
no rows and columns to crop. But both streams lie on one grid, so area, mask and strengths come down to one weight per
cell, the same for all channels of both streams; packed, that is a mask of the latent's own shape, which core applies as
it is. Hooks, timestep ranges and default prompts stay with core.

Nothing is cropped: the model sees the whole picture with every prompt, and an area decides where its prediction counts.
A cropped depth stream would be relative to the mean depth of the crop, and the parts would not fit together.

Relies on: ``comfy.samplers.get_area_and_mult``, which turns an area, a mask and their strengths into weights, and the
entries ``area``, ``mask``, ``strength``, ``mask_strength`` and ``set_area_to_bounds`` of a conditioning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import comfy.samplers
import comfy.utils
import torch
from einops import repeat
from torch import Tensor

from ...mforce_core.release import PATCH_SIZE

#: An area that is not given in shares of the picture counts in these, in pixels.
_AREA_UNIT = 8

#: What an area or a mask says; all of it is in the packed mask.
_REGION = frozenset({"area", "mask", "strength", "mask_strength", "set_area_to_bounds"})

Conditioning = dict[str, Any]


def pack_regions(conds: Sequence[Conditioning], latent_shapes: Sequence[Sequence[int]]) -> list[Conditioning]:
    """Conditionings whose areas and masks are masks of the packed latent; those without either stay as they are.

    Args:
        conds: as a CFGGuider holds them during a run.
        latent_shapes: of the streams, (B, C, h, w) each, on one grid.

    Raises:
        ValueError: an area outside the picture.
    """
    return [_packed(cond, latent_shapes) if "area" in cond or "mask" in cond else cond for cond in conds]


def _packed(cond: Conditioning, latent_shapes: Sequence[Sequence[int]]) -> Conditioning:
    weights = _weights(cond, latent_shapes[0])
    channels = sum(shape[1] for shape in latent_shapes)
    kept = {name: value for name, value in cond.items() if name not in _REGION}
    return kept | {"mask": repeat(weights, "b 1 h w -> b (c h w)", c=channels)}


def _weights(cond: Conditioning, shape: Sequence[int]) -> Tensor:
    """Weight of a prompt per cell, (1 or B, 1, h, w)."""
    batch, _, rows, columns = shape
    region: dict[str, Any] = {name: cond[name] for name in ("strength", "mask_strength") if name in cond}
    area = (rows, columns, 0, 0)
    if "area" in cond:
        region["area"] = area = _cells(cond["area"], rows, columns)
    pictures = 1
    if "mask" in cond:
        mask = cond["mask"].reshape(-1, 1, *cond["mask"].shape[-2:]).float()
        mask = comfy.utils.common_upscale(mask, columns, rows, "bilinear", "none")[:, 0]
        pictures = batch if len(mask) > 1 else 1
        region["mask"] = comfy.utils.repeat_to_batch_size(mask, pictures)
    weights = torch.zeros(pictures, 1, rows, columns)
    if "mask" in region:
        weights = weights.to(region["mask"].device)
    found = comfy.samplers.get_area_and_mult(region | {"model_conds": {}, "uuid": None}, weights, None)
    height, width, top, left = area
    weights[..., top : top + height, left : left + width] = found.mult
    return weights


def _cells(area: Sequence[Any], rows: int, columns: int) -> tuple[int, int, int, int]:
    """(height, width, top, left) of an area in cells, all of it inside the picture.

    Edges are rounded, not lengths: areas that touch each other still do.
    """
    shares = area[0] == "percentage"
    numbers = area[1:] if shares else area
    half = len(numbers) // 2
    lengths, starts = numbers[:half][-2:], numbers[half:][-2:]  # areas of videos start with the time
    found = []
    for side, length, start in zip((rows, columns), lengths, starts, strict=True):
        scale = side if shares else _AREA_UNIT / PATCH_SIZE
        first, end = (math.floor(scale * edge + 0.5) for edge in (start, start + length))
        if first >= side:
            raise ValueError(
                f"A prompt's area starts outside the picture, which is {columns * PATCH_SIZE}x{rows * PATCH_SIZE}:"
                " correct x and y of the node that sets the area of the conditioning."
            )
        found.append((max(1, min(end, side) - first), first))
    (height, top), (width, left) = found
    return height, width, top, left
