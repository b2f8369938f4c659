"""A measured depth map on the model's canvas."""

from __future__ import annotations

import numpy as np
import torch

from ..mforce_core.depth.resampling import resample_depth
from .fitting import Fit


def place_depth(depth: np.ndarray, fit: Fit) -> np.ndarray:
    """The depth map (H, W) on its canvas, no two measurements mixed; margins are NaN: not measured."""
    left, top, right, bottom = fit.box
    width, height = fit.content_size
    used = torch.from_numpy(np.ascontiguousarray(depth[top:bottom, left:right]))
    content = resample_depth(used[None], (height, width))[0].numpy()
    return np.pad(content, fit.margins, constant_values=np.nan)
