"""From what was sampled on the model's canvas to the picture and depth that the settings of a run ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from .batch import Progress
from .full_size.of_settings import full_size_depth, larger_pair
from .inputs import Given
from .networks import Networks
from .settings import Settings

#: Tiles that a GPU samples together; a CPU takes one after another.
_TILES = 8


class Made(NamedTuple):
    """A picture (H, W, 3) uint8, its depth (H, W), and of an ensemble the spread (H, W)."""

    image: np.ndarray
    depth: np.ndarray
    spread: np.ndarray | None = None


def finish(
    made: Made, given: Given, job: Settings, networks: Callable[[], Networks], progress: Progress | None
) -> Made:
    """Bring a pair to its size: that of the given picture or the part of the canvas that shows it, and larger where
    the job enlarges it.

    Args:
        made: on the canvas.
        given: what the run was given.
        job: its settings.
        networks: called where tiles are sampled.
        progress: called after every tile.
    """
    image, depth, spread = made
    placement = given.placement
    if given.original is not None and placement is not None:
        image = given.original
        if job.full_size:
            tiles = networks()
            depth = full_size_depth(tiles, job, depth, placement, image, _together(tiles), progress)
        else:
            depth = placement.restore_depth(torch.from_numpy(depth)[None])[0].numpy()
        if spread is not None:
            known = torch.from_numpy(spread).nan_to_num(1.0)  # no trust where there is no depth
            spread = placement.restore_image(known[None, None])[0, 0].numpy()
    elif placement is not None:
        image, depth = (np.ascontiguousarray(array[placement.content]) for array in (image, depth))
        spread = None if spread is None else np.ascontiguousarray(spread[placement.content])
    if job.enlarge > 1:
        tiles = networks()
        image, depth = larger_pair(tiles, job, image, depth, _together(tiles), progress)
    return Made(image, depth, spread)


def _together(networks: Networks) -> int:
    return 1 if networks.device.type == "cpu" else _TILES
