"""Canvases of several shapes, so that a picture is cut as little as possible and never stretched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import log

from .views import Size

#: Steps of the shorter side between half of the longer one and all of it.
_STEPS = 4


def bucket_canvases(longer: int, grid: int) -> list[Size]:
    """(height, width) of the canvases whose longer side is ``longer`` pixels, from 2:1 over the square to 1:2.

    The shorter side goes from half of the longer one to all of it, in eighths of it on the autoencoder's ``grid``: 256,
    320, 384, 448 and 512 of 512.

    Raises:
        ValueError: ``longer`` is off the grid.
    """
    if longer < grid or longer % grid:
        raise ValueError(f"The size {longer} is off the grid: it must be a multiple of {grid}.")
    eighths = {longer * (_STEPS + step) // (2 * _STEPS) // grid * grid for step in range(_STEPS + 1)}
    shorter = sorted(side for side in eighths if side > 0)
    return [(side, longer) for side in shorter] + [(longer, side) for side in reversed(shorter) if side < longer]


def nearest_canvas(source: Size, canvases: list[Size]) -> Size:
    """The canvas whose shape is nearest to that of a picture (height, width): the one that cuts least off."""

    def cut(canvas: Size) -> float:
        return abs(log(canvas[1] / canvas[0]) - log(source[1] / source[0]))

    return min(canvases, key=cut)


def first_full(canvases: Iterable[Size], size: int) -> list[int]:
    """Which of the pictures that wait, given by their canvases in the order in which they came, are the next batch.

    Returns:
        Indices of the first ``size`` on the canvas that has so many first, ascending; none where no canvas has them.
    """
    waiting: dict[Size, list[int]] = defaultdict(list)
    for index, canvas in enumerate(canvases):
        waiting[canvas].append(index)
        if len(waiting[canvas]) == size:
            return waiting[canvas]
    return []
