"""Where a picture of any size lands on the model's canvas, and the way back: letterbox, crop, stretch.

The model works on a canvas whose sides are multiples of 16 pixels. A `Placement` says which part of the source picture
is used, how big that part becomes and which bars are put around it. It carries pictures and depth maps to the canvas
and brings what the model made of them back to the source. Sizes are (height, width) in pixels, as of arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from .depth.resampling import enlarge_depth, resample_depth
from .release import PATCH_SIZE

Size = tuple[int, int]

#: The ways to fit a source on a canvas.
CROP, LETTERBOX, STRETCH, KEEP, KEEP_ASPECT = FITS = ("crop", "letterbox", "stretch", "keep size", "keep aspect")


@dataclass(frozen=True)
class Placement:
    """Which part of the source is used, how big it becomes, and the bars around it.

    Attributes:
        source: (height, width) of the source picture.
        crop: (top, left, height, width) of the part that is used, in pixels of the source.
        size: (height, width) of that part on the canvas.
        bars: widths of the bars (left, right, top, bottom), in pixels of the canvas.
    """

    source: Size
    crop: tuple[int, int, int, int]
    size: Size
    bars: tuple[int, int, int, int]

    @property
    def canvas(self) -> Size:
        """(height, width) with the bars: the size that the model works at."""
        left, right, top, bottom = self.bars
        return self.size[0] + top + bottom, self.size[1] + left + right

    # To the canvas.

    def place_image(self, images: Tensor) -> Tensor:
        """Pictures (B, C, *source) in [0, 1] on the canvas, bicubic and antialiased; the bars are black."""
        part = self.cut(images)
        if part.shape[-2:] != self.size:
            part = interpolate(part, self.size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
        return pad(part, self.bars)

    def place_photo(self, image: Image.Image) -> np.ndarray:
        """An 8-bit RGB picture on the canvas, (H, W, 3) uint8, by Lanczos; the bars continue the picture's border."""
        top, left, height, width = self.crop
        # By the box, so that the filter sees the picture beyond the cut.
        part = image.resize(self.size[::-1], Image.Resampling.LANCZOS, box=(left, top, left + width, top + height))
        before_x, after_x, before_y, after_y = self.bars
        return np.pad(np.asarray(part), ((before_y, after_y), (before_x, after_x), (0, 0)), mode="edge")

    def place_depth(self, depth: Tensor) -> Tensor:
        """Depth maps (B, *source) on the canvas, NaN where nothing was measured, the bars included.

        Every value is one that was there before: no two measurements are mixed.
        """
        return pad(resample_depth(self.cut(depth), self.size), self.bars, value=torch.nan)

    def inside(self, batch: int) -> Tensor:
        """(B, *canvas) bool: False on the bars."""
        return pad(torch.ones(batch, *self.size, dtype=torch.bool), self.bars, value=False)

    def cut(self, maps: Tensor) -> Tensor:
        """The part of sources (..., H, W) that is used."""
        top, left, height, width = self.crop
        return maps[..., top : top + height, left : left + width]

    # Back to the source.

    def restore_image(self, images: Tensor) -> Tensor:
        """Pictures or masks (B, C, *canvas) at the source's size, within the values that they have; 0 where cut off."""
        inner = self.without_bars(images).float()
        if inner.shape[-2:] != self.crop[2:]:
            low, high = torch.aminmax(inner)
            inner = interpolate(inner, self.crop[2:], mode="bicubic", antialias=True).clamp(low, high)
        return self.uncut(inner, 0.0)

    def restore_depth(self, depth: Tensor) -> Tensor:
        """Depth maps (B, *canvas) at the source's size, smooth on surfaces; NaN where missing or cut off."""
        return self.uncut(enlarge_depth(self.without_bars(depth), self.crop[2:]), torch.nan)

    def restore_cameras(self, intrinsics: Tensor) -> Tensor:
        """Normalized intrinsics (B, 3, 3) of the canvas for the source picture, which has square pixels.

        Where the fit changed the picture's proportions, a camera with square pixels was assumed for the stretched one;
        its horizontal field of view is kept.
        """
        (rows, columns), (top, left, height, width) = self.source, self.crop
        left_bar, _, top_bar, _ = self.bars
        wide, high = width / self.size[1], height / self.size[0]  # source pixels per canvas pixel
        in_pixels = intrinsics * intrinsics.new_tensor([self.canvas[1], self.canvas[0], 1.0])[:, None]
        restored = intrinsics.clone()
        restored[:, 0, 0] = in_pixels[:, 0, 0] * wide / columns
        restored[:, 1, 1] = in_pixels[:, 1, 1] * wide / rows
        restored[:, 0, 2] = ((in_pixels[:, 0, 2] - left_bar) * wide + left) / columns
        restored[:, 1, 2] = ((in_pixels[:, 1, 2] - top_bar) * high + top) / rows
        return restored

    @property
    def content(self) -> tuple[slice, slice]:
        """Rows and columns of the canvas between the bars."""
        left, _, top, _ = self.bars
        return slice(top, top + self.size[0]), slice(left, left + self.size[1])

    def without_bars(self, maps: Tensor) -> Tensor:
        """The content of canvases (..., H, W)."""
        rows, columns = self.content
        return maps[..., rows, columns]

    def uncut(self, maps: Tensor, value: float) -> Tensor:
        """Maps (..., h, w) of the used part with ``value`` around them where the source was cut off."""
        top, left, height, width = self.crop
        rows, columns = self.source
        return pad(maps, (left, columns - left - width, top, rows - top - height), value=value)


def place(source: Size, canvas: Size, fit: str, *, at: tuple[float, float] = (0.5, 0.5)) -> Placement:
    """Plan how a source picture comes to a canvas.

    Args:
        source: (height, width) of the picture.
        canvas: (height, width) wanted, multiples of 16.
        fit: one of `FITS`. crop: cut the longer side. letterbox: the whole picture between bars. stretch: change the
            proportions. keep size: the source's own size. keep aspect: the source's proportions, as nearly as the grid
            allows, at about as many pixels as the canvas has.
        at: where a crop lies between the top (left) and the bottom (right) edge, 0 to 1.

    Raises:
        ValueError: "keep size" with a source whose sides are no multiples of 16.
    """
    rows, columns = source
    height, width = canvas
    whole, no_bars = (0, 0, rows, columns), (0, 0, 0, 0)
    if fit == KEEP:
        if rows % PATCH_SIZE or columns % PATCH_SIZE:
            others = f"'{CROP}', '{LETTERBOX}', '{STRETCH}' or '{KEEP_ASPECT}'"
            raise ValueError(
                f"the input is {columns}x{rows} and fit is '{KEEP}', which needs multiples of {PATCH_SIZE}:"
                f" choose {others}, or resize it before."
            )
        return Placement(source, whole, source, no_bars)
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
        kept = min(rows, max(1, round(height / scale))), min(columns, max(1, round(width / scale)))
        # Half a pixel is rounded towards the top left.
        top, left = (math.ceil((side - part) * share - 0.5) for side, part, share in zip(source, kept, at, strict=True))
        crop = (top, left, *kept)
    return Placement(source, crop, (height, width), no_bars)


def nearest_size(source: Size, pixels: int) -> Size:
    """The (height, width) on the grid with about the proportions of ``source`` and about this many pixels.

    Proportions count more: with few cells, a picture loses little by some pixels more or less.
    """
    aspect = source[1] / source[0]
    ideal = math.sqrt(pixels / aspect), math.sqrt(pixels * aspect)
    heights, widths = (
        [max(1, step(side / PATCH_SIZE)) * PATCH_SIZE for step in (math.floor, math.ceil)] for side in ideal
    )

    def badness(size: Size) -> float:
        height, width = size
        return abs(math.log(width / height / aspect)) + 0.25 * abs(math.log(width * height / pixels))

    return min(product(heights, widths), key=badness)
