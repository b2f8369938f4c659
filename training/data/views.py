"""Views of a picture on the model's canvas: crop, resize, letterbox and flip, depth and image aligned to the pixel.

Depth is never interpolated: a pixel of the canvas holds one measurement that was there before, or none. Sizes of
pictures are (height, width), as of arrays.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from ...mforce_core.depth.resampling import resample_depth
from ...mforce_core.placement import CROP, LETTERBOX, Placement, place

Size = tuple[int, int]
Fit = Literal["crop", "pad"]

#: Captions that a mirrored picture would make untrue.
_SIDES = re.compile(r"\b(left|right)(most|wards?)?\b", re.IGNORECASE)


#: The names of the fits in a configuration.
_FITS: dict[Fit, str] = {"crop": CROP, "pad": LETTERBOX}


@dataclass(frozen=True)
class View:
    """A picture's placement on the canvas, and whether the canvas is mirrored."""

    placement: Placement
    flip: bool = False


def plan_view(
    source: Size, canvas: Size, fit: Fit = "crop", *, at: tuple[float, float] = (0.5, 0.5), flip: bool = False
) -> View:
    """The largest part of a picture that has the canvas's shape, or ("pad") the whole of it letterboxed.

    ``at``: where between the top (left) and the bottom (right) edge the part lies, 0 to 1; (0.5, 0.5) is the center.
    """
    return View(place(source, canvas, _FITS[fit], at=at), flip)


def numbered_view(number: int, seed: int, key: str, caption: str, source: Size, canvas: Size, fit: Fit) -> View:
    """View 0 is the center, the others are random crops of which half are mirrored; a function of the arguments alone.

    Captions that speak of left or right are not mirrored.
    """
    if number == 0:
        return plan_view(source, canvas, fit)
    digest = hashlib.sha256(f"{seed}/{key}/{number}".encode()).digest()
    y, x, coin = (int.from_bytes(digest[4 * i : 4 * i + 4], "big") / 2**32 for i in range(3))
    return plan_view(source, canvas, fit, at=(y, x), flip=coin < 0.5 and not _SIDES.search(caption))


def view_image(image: np.ndarray, view: View) -> Tensor:
    """(H, W, 3) uint8 -> (3, *canvas) uint8; margins continue the picture's border."""
    pixels = view.placement.place_photo(Image.fromarray(image))
    return torch.from_numpy(np.ascontiguousarray(pixels[:, ::-1] if view.flip else pixels)).permute(2, 0, 1)


def view_depth(depth: np.ndarray, view: View, *, sparse: bool) -> Tensor:
    """(H, W) float32 -> canvas, NaN where nothing was measured, margins included."""
    placement = view.placement
    part = placement.cut(torch.from_numpy(depth)).contiguous()
    placed = pad(move_depth(part, placement.size, sparse=sparse), placement.bars, value=torch.nan)
    return placed.flip(1) if view.flip else placed


def move_depth(depth: Tensor, size: Size, *, sparse: bool) -> Tensor:
    """A map (H, W) at another size, every value being one that was there before.

    Where a side shrinks, a pixel takes the measurement nearest to its center. Where a side grows, the pixels of a dense
    map become larger; those of a ``sparse`` one stay single pixels, each where its center falls.
    """
    if not sparse:
        return resample_depth(depth[None], size)[0]
    rows, columns = (min(before, after) for before, after in zip(depth.shape, size, strict=True))
    smaller = resample_depth(depth[None], (rows, columns))[0]
    if (rows, columns) == size:
        return smaller
    y, x = ((torch.arange(n) * 2 + 1) * full // (2 * n) for n, full in zip((rows, columns), size, strict=True))
    moved = torch.full(size, torch.nan)
    moved[y[:, None], x] = smaller
    return moved
