"""Overlapping tiles of a picture, and putting what was made of them together in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..release import PATCH_SIZE

Size = tuple[int, int]

#: Weight of a tile's outermost pixel: not 0, as a pixel may have no other tile.
_LEAST = 1e-3


@dataclass(frozen=True)
class Tile:
    """A part of a picture, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def plan_tiles(size: Size, side: Size, overlap: float) -> list[Tile]:
    """Tiles that cover a picture of (height, width), row by row.

    Args:
        size: (height, width) of the picture.
        side: (height, width) of a tile; a picture that is smaller on a side has smaller tiles.
        overlap: share of a tile that its neighbor covers, too, to half a token; 0 to below 1.
    """
    height, width = (min(one, whole) for one, whole in zip(side, size, strict=True))
    tops, lefts = _starts(size[0], height, overlap), _starts(size[1], width, overlap)
    return [Tile(top, left, height, width) for top in tops for left in lefts]


def _starts(whole: int, side: int, overlap: float) -> list[int]:
    """Evenly spaced, the first at the beginning, the last ending at the end.

    Every second one is moved by half a token, so that the tokens of overlapping tiles do not end on the same lines:
    what steps there are between tokens fade into each other.
    """
    spare = whole - side
    count = 1 + math.ceil(spare / max(1, math.floor(side * (1 - overlap))))
    even = [round(number * spare / max(1, count - 1)) for number in range(count)]
    gaps = [after - before for before, after in pairwise(even)]
    # Before the next one begins, and before the one before ends; the last stays where it is.
    moved = min([PATCH_SIZE // 2, *(gap - 1 for gap in gaps), *(side - gap for gap in gaps)])
    return [min(start + moved * (number % 2), spare) for number, start in enumerate(even)]


class Blend:
    """A map that is put together from tiles, row by row.

    Only the rows that tiles still to come may touch are held as sums; those above are finished and written into
    ``out``, which may be a memory map. Tiles come in the order of `plan_tiles`.

    Args:
        out: (height, width, ...) float32, filled in place.
    """

    def __init__(self, out: np.ndarray) -> None:
        self.out, self.top = out, 0
        self.sums, self.weights = np.zeros((0, *out.shape[1:]), np.float32), np.zeros((0, *out.shape[1:]), np.float32)

    def add(self, tile: Tile, values: Tensor) -> None:
        """Add a tile's values (height, width, ...); NaN counts for nothing."""
        self._finish_rows(tile.top)
        self._make_room(tile.top + tile.height - self.top)
        weights = _window(tile).reshape(tile.height, tile.width, *[1] * (values.ndim - 2))
        known = ~values.isnan()
        rows = slice(tile.top - self.top, tile.top - self.top + tile.height)
        self.sums[rows, tile.place[1]] += torch.where(known, values * weights, 0.0).cpu().numpy()
        self.weights[rows, tile.place[1]] += (known * weights).cpu().numpy()

    def finish(self) -> np.ndarray:
        """Write what is left; returns ``out``, NaN where no tile had a value."""
        self._finish_rows(self.top + len(self.sums))
        return self.out

    def _make_room(self, rows: int) -> None:
        more = max(0, rows - len(self.sums))
        room = np.zeros((more, *self.out.shape[1:]), np.float32)
        self.sums, self.weights = (np.concatenate((sums, room)) for sums in (self.sums, self.weights))

    def _finish_rows(self, before: int) -> None:
        """Write the rows above ``before``, a row of the whole map."""
        count = before - self.top
        if count > 0:
            with np.errstate(invalid="ignore"):
                self.out[self.top : before] = self.sums[:count] / self.weights[:count]
            self.sums, self.weights, self.top = self.sums[count:], self.weights[count:], before


def _window(tile: Tile) -> Tensor:
    """(height, width) weights that fall off smoothly from the middle of a tile to its border."""
    rows, columns = (
        torch.sin(torch.pi * (torch.arange(side) + 0.5) / side).square().clamp(min=_LEAST)
        for side in (tile.height, tile.width)
    )
    return rows[:, None] * columns


def batches(tiles: Sequence[Tile], count: int) -> list[Sequence[Tile]]:
    """The tiles in their order, at most ``count`` together; all of a plan have one size."""
    return [tiles[start : start + count] for start in range(0, len(tiles), count)]
