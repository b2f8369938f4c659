"""Depth of a whole picture, tile by tile, from a map of the model's size.

The model sees a picture of its own size and knows how the depths of it lie to each other; a tile of the full picture
shows the model more of an edge and less of the scene. So every tile starts from the enlarged map with a part of the
noise, and keeps the map's low frequencies; tiles overlap and fade into each other; at last edges of depth go to the
edges of the picture beside them. Pictures more than twice as large as the map are approached by factors of two at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..depth.resampling import resample_depth
from ..placement import Placement
from .enlarged import EnlargedDepth
from .low_band import hold_low_band
from .snapping import snap_rows
from .tiles import Blend, Size, batches, plan_tiles

#: Pictures (B, 3, h, w) in [0, 1] and maps (B, h, w) to start from, NaN where unknown -> the model's maps (B, h, w).
See = Callable[[Tensor, Tensor], Tensor]
#: progress(tile, tiles) after every tile, over all sizes.
Progress = Callable[[int, int], None]

#: Largest factor between one size and the next.
_FACTOR = 2.0
#: Standard deviation of the Gaussian above which a tile's frequencies are its own, in pixels of the smaller map.
HELD = 2.0
#: Pixels of the smaller map by which its edges may be wrong.
SNAPPED = 2.0
#: Rows of a picture that are made smaller together, and the reach of the filter in pixels of the smaller picture.
_ROWS, _REACH = 128, 4


@dataclass(frozen=True)
class Tiling:
    """How a picture is taken apart.

    Attributes:
        side: (height, width) of a tile in pixels: the size that the model was trained for.
        overlap: share of a tile that its neighbor covers, too.
        together: tiles in one call of the model.
        snap: move edges of depth to those of the picture at the end.

    Raises:
        ValueError: an impossible value.
    """

    side: Size
    overlap: float = 0.5
    together: int = 1
    snap: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(f"`overlap` must lie between 0 and 0.9, got {self.overlap}.")
        if min(self.side) < 1 or self.together < 1:
            raise ValueError(f"Tiles need at least 1 pixel and 1 at a time, got {self.side} and {self.together}.")


def refine_depth(
    picture: np.ndarray,
    coarse: Tensor,
    see: See,
    tiling: Tiling,
    *,
    out: np.ndarray | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Depth of a picture in its own size.

    Beyond picture and result, the memory that this takes is that of a few tiles and a row of them, and of maps at half
    the size.

    Args:
        picture: (H, W, 3) uint8, which may be a memory map.
        coarse: (h, w) depth of the whole picture, NaN where unknown; made smaller where a side is longer than the
            picture's.
        see: the model.
        tiling: the tiles.
        out: (H, W) float32 to write into, for example a memory map; None makes one.
        progress: what it raises ends the work.

    Returns:
        ``out``: depth in the unit of ``coarse``, NaN where that has none.

    Raises:
        ValueError: a map without any depth.
    """
    full = (picture.shape[0], picture.shape[1])
    coarse = resample_depth(coarse[None], (min(coarse.shape[0], full[0]), min(coarse.shape[1], full[1])))[0]
    if coarse.isnan().all():
        raise ValueError("The depth has no valid pixel to start from.")
    if out is None:
        out = np.empty(full, np.float32)
    sizes = ladder((coarse.shape[0], coarse.shape[1]), full)
    plans = [plan_tiles(size, tiling.side, tiling.overlap) for size in sizes]
    total, done = sum(map(len, plans)), 0
    for size, plan in zip(sizes, plans, strict=True):
        last = size == full
        shown = picture if last else shrink(picture, size)
        enlarged, blend = EnlargedDepth(coarse, size), Blend(out if last else np.empty(size, np.float32))
        factor = max(1.0, size[0] / coarse.shape[0])
        for batch in batches(plan, tiling.together):
            start = torch.stack([enlarged[tile] for tile in batch])
            colors = [torch.from_numpy(np.array(shown[tile.place])).movedim(-1, 0) / 255 for tile in batch]
            fine = hold_low_band(_seen(see, torch.stack(colors), start), start, HELD * factor)
            for tile, values in zip(batch, fine, strict=True):
                blend.add(tile, values.log())
                done += 1
                if progress is not None:
                    progress(done, total)
        exponentiate(blend.finish())
        if tiling.snap:
            snap_rows(blend.out, shown, round(SNAPPED * factor))
        coarse = torch.from_numpy(blend.out)
    return out


def refine_placed(
    depth: Tensor,
    placement: Placement,
    picture: np.ndarray,
    see: See,
    tiling: Tiling,
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Depth of a picture (H, W, 3) in its own size, from depth of the canvas (h, w) that it was placed on.

    Returns:
        (H, W), NaN where the picture was cut off.
    """
    top, left, height, width = placement.crop
    shown = picture[top : top + height, left : left + width]
    refined = refine_depth(shown, placement.without_bars(depth), see, tiling, progress=progress)
    return placement.uncut(torch.from_numpy(refined), torch.nan).numpy()


def count_tiles(coarse: Size, full: Size, tiling: Tiling) -> int:
    """How many tiles `refine_depth` takes, over all sizes."""
    return sum(len(plan_tiles(size, tiling.side, tiling.overlap)) for size in ladder(coarse, full))


def ladder(small: Size, full: Size) -> list[Size]:
    """Sizes from a small map to the full picture, at most twice as large each; the last is the full size."""
    factor = max(large / few for few, large in zip(small, full, strict=True))
    rungs = max(1, math.ceil(math.log(factor, _FACTOR) - 1e-6))
    shares = [(rung + 1) / rungs for rung in range(rungs - 1)]
    between = [tuple(round(few * (large / few) ** s) for few, large in zip(small, full, strict=True)) for s in shares]
    return [*[(height, width) for height, width in between], full]


def shrink(picture: np.ndarray, size: Size) -> np.ndarray:
    """A picture (H, W, 3) uint8 at a smaller (height, width), by Lanczos, a few rows at a time."""
    height, width = size
    scale = picture.shape[0] / height
    small = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _ROWS):
        bottom = min(top + _ROWS, height)
        first = max(0, math.floor((top - _REACH) * scale))
        last = min(picture.shape[0], math.ceil((bottom + _REACH) * scale))
        rows = Image.fromarray(np.array(picture[first:last]))
        box = (0.0, top * scale - first, float(picture.shape[1]), bottom * scale - first)
        small[top:bottom] = np.asarray(rows.resize((width, bottom - top), Image.Resampling.LANCZOS, box=box))
    return small


def _seen(see: See, colors: Tensor, start: Tensor) -> Tensor:
    """The model's maps; where a start has no depth at all, nothing is asked and nothing known."""
    empty = start.isnan().flatten(1).all(1)
    if empty.all():
        return start
    if not empty.any():
        return see(colors, start)
    fine = start.clone()
    fine[~empty] = see(colors[~empty], start[~empty])
    return fine


def exponentiate(logarithm: np.ndarray) -> None:
    """Depth of its logarithm, in place, some rows at a time: a memory map is not held as a whole."""
    for top in range(0, len(logarithm), _ROWS):
        np.exp(logarithm[top : top + _ROWS], out=logarithm[top : top + _ROWS])
