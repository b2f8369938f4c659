"""The middle of every picture of a data set, as a square of one size: what the paper's scaling study scores on."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from ...mforce_core.placement import CROP, Placement, place
from .example import DataSet, Example, checked


class CenterCropped:
    """A data set whose pictures are cut to the largest square in their middle and resized.

    Pictures by Lanczos; every depth is one that was measured, see `Placement.place_depth`.

    Args:
        data: the whole pictures.
        side: of the squares, in pixels.
    """

    def __init__(self, data: DataSet, side: int) -> None:
        self._data, self._side = data, side
        self.title, self.names, self.limits, self.sharp = data.title, data.names, data.limits, data.sharp
        self.preparation = f"{data.preparation}; then the largest square in the middle at {side}x{side}"

    def read(self, index: int) -> Example:
        whole = self._data.read(index)
        placement = place(whole.depth.shape, (self._side, self._side), CROP)
        measured = np.where(whole.mask, whole.depth, np.nan).astype(np.float32)
        depth = placement.place_depth(torch.from_numpy(measured)[None])[0].numpy()
        mask = np.isfinite(depth)
        intrinsics = None if whole.intrinsics is None else _cut(whole.intrinsics, placement)
        image = placement.place_photo(Image.fromarray(whole.image))
        return checked(Example(whole.name, image, np.where(mask, depth, 0), mask, intrinsics))

    def stamp(self, index: int) -> str:
        return self._data.stamp(index)


def _cut(intrinsics: np.ndarray, placement: Placement) -> np.ndarray:
    """Normalized intrinsics (3, 3) of the part of a picture that is used."""
    (rows, columns), (top, left, height, width) = placement.source, placement.crop
    pixels = np.diag([columns, rows, 1.0]) @ intrinsics
    pixels[:2, 2] -= left, top
    return (np.diag([1 / width, 1 / height, 1.0]) @ pixels).astype(intrinsics.dtype)
