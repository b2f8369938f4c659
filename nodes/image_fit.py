"""Bringing pictures and depth maps of any size to a size on the latent grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate, pad

from .joint_latent import CELL, check_size

CROP, LETTERBOX, STRETCH, KEEP = "crop", "letterbox", "stretch", "keep size"


def size_inputs() -> list[io.Input]:
    """The width, height and fit widgets of a node that takes pictures of any size."""
    return [
        io.Int.Input(
            "width",
            default=128,
            min=CELL,
            max=8192,
            step=CELL,
            tooltip="Width to work at, a multiple of 16: 128 for nano, about 512 for the released model.",
        ),
        io.Int.Input(
            "height",
            default=128,
            min=CELL,
            max=8192,
            step=CELL,
            tooltip="Height to work at, a multiple of 16: 128 for nano, about 512 for the released model.",
        ),
        io.Combo.Input(
            "fit",
            options=[CROP, LETTERBOX, STRETCH, KEEP],
            default=CROP,
            tooltip="How the input becomes width x height. crop: cut the longer side, centred. letterbox: "
            "add bars, which are left out of the depth. stretch: change the proportions. keep size: use the "
            "input's own size, which must be a multiple of 16.",
        ),
    ]


@dataclass(frozen=True)
class Placement:
    """Which part of the input is used, how big it becomes, and the bars around it; all in pixels."""

    crop: tuple[int, int, int, int]  # top, left, height, width, of the input
    size: tuple[int, int]  # height, width after scaling
    bars: tuple[int, int, int, int]  # left, right, top, bottom

    def cut(self, maps: Tensor) -> Tensor:
        """The used part of (B, C, H, W)."""
        top, left, height, width = self.crop
        return maps[..., top : top + height, left : left + width]

    def inside(self, batch: int) -> Tensor:
        """(B, H', W') bool: False on the bars."""
        return pad(torch.ones(batch, *self.size, dtype=torch.bool), self.bars, value=False)


def place(node: str, source: tuple[int, int], width: int, height: int, fit: str) -> Placement:
    """How an input of ``source`` (height, width) comes to ``height`` x ``width``.

    Raises:
        ValueError: naming ``node``, for sizes off the grid.
    """
    rows, columns = source
    if fit == KEEP:
        if rows % CELL or columns % CELL:
            raise ValueError(
                f"{node}: the input is {columns}x{rows} and fit is '{KEEP}', which needs multiples of {CELL}:"
                f" choose '{CROP}', '{LETTERBOX}' or '{STRETCH}', or resize it before."
            )
        return Placement((0, 0, rows, columns), (rows, columns), (0, 0, 0, 0))
    check_size(node, width, height)
    if fit == LETTERBOX:
        scale = min(height / rows, width / columns)
        size = (max(1, round(rows * scale)), max(1, round(columns * scale)))
        left, top = (width - size[1]) // 2, (height - size[0]) // 2
        return Placement((0, 0, rows, columns), size, (left, width - size[1] - left, top, height - size[0] - top))
    crop = (0, 0, rows, columns)
    if fit == CROP:
        scale = max(height / rows, width / columns)
        kept = (min(rows, max(1, round(height / scale))), min(columns, max(1, round(width / scale))))
        crop = ((rows - kept[0]) // 2, (columns - kept[1]) // 2, *kept)
    return Placement(crop, (height, width), (0, 0, 0, 0))


def fit_image(image: Tensor, placement: Placement) -> Tensor:
    """IMAGE (B, H, W, C) to RGB (B, H', W', 3) in [0, 1]; transparency is put on white, bars are black."""
    maps = placement.cut(to_rgb(image).movedim(-1, 1).float())
    if maps.shape[-2:] != placement.size:
        maps = interpolate(maps, placement.size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
    return pad(maps, placement.bars).movedim(1, -1)


def to_rgb(image: Tensor) -> Tensor:
    """IMAGE with 1 to 4 channels to 3: grey is repeated, an alpha channel is put on white."""
    channels = image.shape[-1]
    if channels in (2, 4):
        alpha = image[..., -1:]
        image = image[..., :-1] * alpha + (1 - alpha)
    return image if image.shape[-1] == 3 else image[..., :1].expand(*image.shape[:-1], 3)


def fit_depth(depth: Tensor, valid: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
    """Scale depth (B, H, W) and its valid pixels without inventing surfaces between near and far.

    A pixel takes the nearest input pixel; where that one is not valid, the mean of the valid ones it covers,
    so that sparse measurements survive a reduction.
    """
    known = placement.cut(torch.where(valid, depth, torch.zeros_like(depth))[:, None])
    weight = placement.cut(valid[:, None].float())
    if known.shape[-2:] != placement.size:
        nearest = interpolate(known, placement.size, mode="nearest-exact")
        hit = interpolate(weight, placement.size, mode="nearest-exact") > 0
        covered = interpolate(weight, placement.size, mode="area")
        mean = interpolate(known, placement.size, mode="area") / covered.clamp(min=1e-12)
        known, weight = torch.where(hit, nearest, mean), covered.gt(0).float()
    return pad(known, placement.bars)[:, 0], pad(weight, placement.bars)[:, 0] > 0
