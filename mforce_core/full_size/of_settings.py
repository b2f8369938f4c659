"""Full-size depth and larger pairs as the settings of a run ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..networks import Networks
from ..placement import Placement
from ..rollout_settings import guidance_of
from ..settings import PAIR_STRENGTH, TILE_STRENGTH, Settings
from .refine import Progress, Tiling, refine_placed
from .refine_both import refine_both
from .tile_model import PairModel, TileModel


def full_size_depth(
    networks: Networks,
    job: Settings,
    depth: np.ndarray,
    placement: Placement,
    picture: np.ndarray,
    together: int,
    progress: Progress | None,
) -> np.ndarray:
    """Depth (H, W) of a picture (H, W, 3) from depth of the canvas that it was placed on; see `refine_placed`.

    Args:
        together: tiles in one call of the model.
    """
    model = TileModel(networks, **_of_tiles(job, TILE_STRENGTH))
    coarse = torch.from_numpy(depth)
    return refine_placed(coarse, placement, picture, model, _tiling(job, together), progress=progress)


def larger_pair(
    networks: Networks,
    job: Settings,
    picture: np.ndarray,
    depth: np.ndarray,
    together: int,
    progress: Progress | None,
) -> tuple[np.ndarray, np.ndarray]:
    """A larger picture (H, W, 3) with its depth (H, W), of those that were sampled; see `refine_both`."""
    model = PairModel(networks, cfg=guidance_of(job), **_of_tiles(job, PAIR_STRENGTH))
    size = round(job.enlarge * picture.shape[0]), round(job.enlarge * picture.shape[1])
    return refine_both(picture, torch.from_numpy(depth), size, model, _tiling(job, together), progress=progress)


def _tiling(job: Settings, together: int) -> Tiling:
    width, height = (job.tile, job.tile) if job.tile else job.canvas
    return Tiling((height, width), job.overlap, together)


def _of_tiles(job: Settings, strength: float) -> Mapping[str, Any]:
    return {
        "strength": strength if job.tile_strength is None else job.tile_strength,
        "steps": job.steps,
        "solver": job.sampler,
        "seed": job.seed,
    }
