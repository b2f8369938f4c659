"""A picture and its depth made larger together: both streams from a part of the noise, tile by tile.

A sampled picture has no details beyond the model's size, so both are made anew. Tiles are sampled one by one and fade
into each other as pixels; the low frequencies of color and of depth stay those of the small pair.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from .enlarged import EnlargedDepth
from .low_band import hold_low_band
from .refine import HELD, SNAPPED, Progress, Tiling, exponentiate, ladder
from .snapping import snap_rows
from .tiles import Blend, Size, batches, plan_tiles

#: Pictures (B, 3, h, w) in [0, 1] and maps (B, h, w) to start from -> the model's pictures and maps.
Make = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def refine_both(
    picture: np.ndarray, depth: Tensor, size: Size, make: Make, tiling: Tiling, *, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A larger picture with its depth.

    Args:
        picture: (h, w, 3) uint8.
        depth: (h, w), NaN where there is none.
        size: (height, width) wanted, no smaller on either side.
        make: the model.
        tiling: the tiles.
        progress: what it raises ends the work.

    Returns:
        (H, W, 3) uint8 and (H, W) float32, NaN where there is no depth.
    """
    sizes = ladder((depth.shape[0], depth.shape[1]), size)
    plans = [plan_tiles(one, tiling.side, tiling.overlap) for one in sizes]
    total, done = sum(map(len, plans)), 0
    for (height, width), plan in zip(sizes, plans, strict=True):
        factor = max(1.0, height / depth.shape[0])
        shown = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
        enlarged = EnlargedDepth(depth, (height, width))
        blend = Blend(np.empty((height, width, 4), np.float32))
        for batch in batches(plan, tiling.together):
            start = torch.stack([enlarged[tile] for tile in batch])
            colors = torch.stack([torch.from_numpy(shown[tile.place].copy()).movedim(-1, 0) / 255 for tile in batch])
            made, maps = make(colors, start)
            made = _with_colors_of(made, colors, round(HELD * factor))
            maps = hold_low_band(maps, start, HELD * factor).log()
            for tile, values in zip(batch, torch.cat((made, maps[:, None]), dim=1), strict=True):
                blend.add(tile, values.movedim(0, -1))
                done += 1
                if progress is not None:
                    progress(done, total)
        both = blend.finish()
        picture = (both[..., :3].clip(0, 1) * 255).round().astype(np.uint8)
        made_depth = np.ascontiguousarray(both[..., 3])
        exponentiate(made_depth)
        if tiling.snap:
            snap_rows(made_depth, picture, round(SNAPPED * factor))
        depth = torch.from_numpy(made_depth)
    return picture, depth.numpy()


def _with_colors_of(pictures: Tensor, others: Tensor, cell: int) -> Tensor:
    """Pictures (B, C, H, W) with the mean colors of others in every cell of so many pixels, smoothly."""
    height, width = pictures.shape[-2:]
    difference = avg_pool2d(others - pictures, cell, ceil_mode=True, count_include_pad=False)
    size = cell * difference.shape[2], cell * difference.shape[3]
    return pictures + interpolate(difference, size, mode="bilinear", align_corners=False)[..., :height, :width]
