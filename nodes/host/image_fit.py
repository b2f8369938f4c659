"""Bringing pictures and depth maps of any size to a size on the latent grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ...mforce_core.depth.resampling import resample_depth
from ...mforce_core.release import NANO_SIZE, PATCH_SIZE
from .joint_latent import check_size

CROP, LETTERBOX, STRETCH, KEEP, KEEP_ASPECT = "crop", "letterbox", "stretch", "keep size", "keep aspect"


def size_inputs() -> list[io.Input]:
    """The width, height and fit widgets of a node that takes pictures of any size."""
    return [
        io.Int.Input(
            "width",
            default=NANO_SIZE,
            min=PATCH_SIZE,
            max=8192,
            step=PATCH_SIZE,
            tooltip="Width to work at, a multiple of 16: 128 for nano, about 512 for the released model.",
        ),
        io.Int.Input(
            "height",
            default=NANO_SIZE,
            min=PATCH_SIZE,
            max=8192,
            step=PATCH_SIZE,
            tooltip="Height to work at, a multiple of 16: 128 for nano, about 512 for the released model.",
        ),
        io.Combo.Input(
            "fit",
            options=[CROP, LETTERBOX, STRETCH, KEEP, KEEP_ASPECT],
            default=CROP,
            tooltip="How the input becomes width x height. crop: cut the longer side, centered. letterbox: "
            "add bars, which are left out of the depth. stretch: change the proportions. keep size: use the "
            "input's own size, which must be a multiple of 16. keep aspect: the input's proportions, as nearly as "
            "multiples of 16 allow, at about width x height pixels. MF Restore Size undoes all of them.",
        ),
    ]


@dataclass(frozen=True)
class Placement:
    """Which part of the input is used, how big it becomes, and the bars around it; all in pixels."""

    source: tuple[int, int]  # height, width of the input
    crop: tuple[int, int, int, int]  # top, left, height, width, of the input
    size: tuple[int, int]  # height, width after scaling
    bars: tuple[int, int, int, int]  # left, right, top, bottom

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width with the bars: the size that the model works at."""
        left, right, top, bottom = self.bars
        return self.size[0] + top + bottom, self.size[1] + left + right

    def cut(self, maps: Tensor) -> Tensor:
        """The used part of inputs (..., H, W)."""
        top, left, height, width = self.crop
        return maps[..., top : top + height, left : left + width]

    def inside(self, batch: int) -> Tensor:
        """(B, H', W') bool: False on the bars."""
        return pad(torch.ones(batch, *self.size, dtype=torch.bool), self.bars, value=False)

    def without_bars(self, maps: Tensor) -> Tensor:
        """The content of canvases (..., H', W')."""
        left, _, top, _ = self.bars
        return maps[..., top : top + self.size[0], left : left + self.size[1]]

    def uncut(self, maps: Tensor, value: float) -> Tensor:
        """Maps (..., h, w) of the used part with ``value`` around them where the input was cut off."""
        top, left, height, width = self.crop
        rows, columns = self.source
        return pad(maps, (left, columns - left - width, top, rows - top - height), value=value)


def place(node: str, source: tuple[int, int], width: int, height: int, fit: str) -> Placement:
    """How an input of ``source`` (height, width) comes to ``height`` x ``width``.

    Raises:
        ValueError: naming ``node``, for sizes off the grid.
    """
    rows, columns = source
    whole, no_bars = (0, 0, rows, columns), (0, 0, 0, 0)
    if fit == KEEP:
        if rows % PATCH_SIZE or columns % PATCH_SIZE:
            raise ValueError(
                f"{node}: the input is {columns}x{rows} and fit is '{KEEP}', which needs multiples of {PATCH_SIZE}:"
                f" choose '{CROP}', '{LETTERBOX}', '{STRETCH}' or '{KEEP_ASPECT}', or resize it before."
            )
        return Placement(source, whole, source, no_bars)
    check_size(node, width, height)
    if fit == KEEP_ASPECT:
        return Placement(source, whole, nearest_size(source, width * height), no_bars)
    if fit == LETTERBOX:
        scale = min(height / rows, width / columns)
        size = (max(1, round(rows * scale)), max(1, round(columns * scale)))
        left, top = (width - size[1]) // 2, (height - size[0]) // 2
        return Placement(source, whole, size, (left, width - size[1] - left, top, height - size[0] - top))
    crop = whole
    if fit == CROP:
        scale = max(height / rows, width / columns)
        kept = (min(rows, max(1, round(height / scale))), min(columns, max(1, round(width / scale))))
        crop = ((rows - kept[0]) // 2, (columns - kept[1]) // 2, *kept)
    return Placement(source, crop, (height, width), no_bars)


def nearest_size(source: tuple[int, int], pixels: int) -> tuple[int, int]:
    """The (height, width) on the grid that has about the proportions of ``source`` and about so many pixels.

    Proportions count more: with few cells, a picture loses little by some pixels more or less.
    """
    aspect = source[1] / source[0]
    ideal = math.sqrt(pixels / aspect), math.sqrt(pixels * aspect)
    heights, widths = (
        [max(1, step(side / PATCH_SIZE)) * PATCH_SIZE for step in (math.floor, math.ceil)] for side in ideal
    )

    def badness(size: tuple[int, int]) -> float:
        height, width = size
        return abs(math.log(width / height / aspect)) + 0.25 * abs(math.log(width * height / pixels))

    return min(product(heights, widths), key=badness)


def fit_image(image: Tensor, placement: Placement) -> Tensor:
    """IMAGE (B, H, W, C) to RGB (B, H', W', 3) in [0, 1]; transparency is put on white, bars are black."""
    maps = placement.cut(to_rgb(image).movedim(-1, 1).float())
    if maps.shape[-2:] != placement.size:
        maps = interpolate(maps, placement.size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
    return pad(maps, placement.bars).movedim(1, -1)


def to_rgb(image: Tensor) -> Tensor:
    """IMAGE with 1 to 4 channels to 3: gray is repeated, an alpha channel is put on white."""
    channels = image.shape[-1]
    if channels in (2, 4):
        alpha = image[..., -1:]
        image = image[..., :-1] * alpha + (1 - alpha)
    return image if image.shape[-1] == 3 else image[..., :1].expand(*image.shape[:-1], 3)


def fit_depth(depth: Tensor, valid: Tensor, placement: Placement) -> tuple[Tensor, Tensor]:
    """Scale depth (B, H, W) and its valid pixels; every depth is one that was measured, and none lies on the bars."""
    known = placement.cut(torch.where(valid, depth, torch.nan))
    fitted = pad(resample_depth(known, placement.size), placement.bars, value=torch.nan)
    inside = torch.isfinite(fitted)
    return torch.where(inside, fitted, torch.zeros_like(fitted)), inside
