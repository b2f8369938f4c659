"""The 64 x 64 samples on which MoGe fits an alignment: for each cell of a grid the valid pixel nearest to its middle.

As utils3d's ``masked_nearest_resize`` picks them at the commit that MoGe pins; where two pixels are equally near,
float32 rounding and the order in memory decide there, and the same arithmetic decides here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

#: Samples along each side.
GRID = 64


def nearest_samples(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (N,) of the valid pixels of a mask (H, W) that stand for the cells of the grid; N <= 4096."""
    if mask.all():
        return _samples_of_all(mask.shape)
    rows, columns, found = nearest_valid(mask, (GRID, GRID), _middles_as_torch)
    return rows[found], columns[found]


@lru_cache(maxsize=1)
def _samples_of_all(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Those of a mask without a hole; kept for the next picture of the size."""
    rows, columns, _ = nearest_valid(np.ones(shape, bool), (GRID, GRID), _middles_as_torch)
    return rows.ravel(), columns.ravel()


def middles_as_numpy(cells: int) -> np.ndarray:
    """Middles of the cells of the unit interval, (cells,) float32, rounded once."""
    return np.linspace(0.5 / cells, 1 - 0.5 / cells, cells, dtype=np.float32)


def _middles_as_torch(cells: int) -> np.ndarray:
    """The same from PyTorch, which adds float32 steps from both ends."""
    return torch.linspace(0.5 / cells, 1 - 0.5 / cells, cells).numpy()


def nearest_valid(
    mask: np.ndarray, size: tuple[int, int], middles: Callable[[int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each cell of a grid over a mask (H, W) the valid pixel nearest to the cell's middle.

    Args:
        mask: (H, W) bool.
        size: (rows, columns) of the grid.
        middles: of the cells: MoGe's loader has NumPy's, its alignments have PyTorch's.

    Returns:
        Row and column (*size) of each cell's pixel, and whether the cell has one.
    """
    (top, down), (left, across) = (
        _axis(length, middles(cells)) for length, cells in zip(mask.shape, size, strict=True)
    )
    if top.shape[1] == left.shape[1] == 1:  # a picture that keeps its size: each cell is a pixel
        row, column = np.broadcast_to(top, size), np.broadcast_to(left[:, 0], size)
        return row, column, pick(mask, row, column)
    # (cells, window): the squared distances add up, and pixels outside the picture are not valid.
    (rows, row_there), (columns, column_there) = (
        (np.clip(pixels, 0, length - 1), (pixels >= 0) & (pixels < length))
        for pixels, length in zip((top, left), mask.shape, strict=True)
    )
    windows = mask[rows.ravel()][:, columns.ravel()].reshape(*rows.shape, *columns.shape).transpose(0, 2, 1, 3)
    valid = windows & row_there[:, None, :, None] & column_there[None, :, None, :]
    distance = across[None, :, None, :] + down[:, None, :, None]
    window = valid.shape[2:]
    nearest = np.where(valid, distance, np.float32(np.inf)).reshape(*size, -1).argmin(-1)
    found = valid.reshape(*size, -1).any(-1)
    row = np.take_along_axis(top, nearest // window[1], 1)
    column = np.take_along_axis(np.broadcast_to(left, (*size, window[1])), (nearest % window[1])[..., None], 2)[..., 0]
    return row, column, found


def pick(map_: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``map_[rows, columns]``; faster where they are whole rows and columns, as of a picture that keeps its size."""
    if rows.strides[1] == columns.strides[0] == 0:
        return map_[rows[:, 0]][:, columns[0]]
    return map_[rows, columns]


def _axis(length: int, middles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (cells, window) around the middle of each cell along one axis, and their squared distances in float32."""
    width = max(1.0, length / len(middles))
    middle = middles * np.float32(length)
    first = np.round(middle - np.float32(width / 2)).astype(np.int64)
    pixels = first[:, None] + np.arange(math.ceil(width))
    return pixels, np.square(pixels.astype(np.float32) + np.float32(0.5) - middle[:, None])
