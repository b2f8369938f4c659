"""Marigold's ensemble: several affine-invariant maps of a picture become one (arXiv 2312.02145, ``util/ensemble.py``).

Each map gets a scale and a shift that minimize the sum of the RMSE of all pairs plus a pull to the unit range; the
median of the aligned maps, normalized to [0, 1], is the result. The original computes in float32 while SciPy's BFGS
takes its gradients from steps of 1.5e-8, which mostly round away: what it finds stays close to where it starts, each
map stretched to [0, 1]. The arithmetic here is the same.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import interpolate

_PULL = 0.02
_FIT_SIDE = 1024
#: Iterations and tolerance of the pipeline in diffusers; prs-eth/Marigold's own newer default is 50 and 1e-6.
MAX_ITERATIONS, TOLERANCE = 2, 1e-3


def ensemble(maps: np.ndarray, *, iterations: int = MAX_ITERATIONS, tolerance: float = TOLERANCE) -> np.ndarray:
    """One map of several.

    Args:
        maps: (N, H, W) affine-invariant depth or disparity, NaN where there is none.
        iterations, tolerance: of BFGS.

    Returns:
        (H, W) float32 in [0, 1], NaN where any of the maps has none; a single map is returned as it is.

    Raises:
        ValueError: no pixel has a value in all maps.
    """
    if len(maps) == 1:
        return maps[0].astype(np.float32)
    known = np.isfinite(maps).all(0)
    if not known.any():
        raise ValueError("no pixel has a depth in every map of the ensemble")
    stack = torch.from_numpy(maps.astype(np.float32))
    if not known.all():
        stack = stack[:, torch.from_numpy(known)][:, None]
    small = _shrunk(stack)
    low, high = small.flatten(1).amin(1), small.flatten(1).amax(1)
    scale = 1.0 / (high - low).clamp(min=1e-6)
    start = torch.cat((scale, -scale * low)).numpy().astype(np.float64)
    found = minimize(_cost, start, args=(small,), method="BFGS", tol=tolerance, options={"maxiter": iterations})
    middle = _aligned(stack, found.x).median(dim=0).values
    low, high = middle.min(), middle.max()
    unit = ((middle - low) / (high - low).clamp(min=1e-6)).numpy()
    result = np.full(known.shape, np.nan, np.float32)
    result[known] = unit.ravel()
    return result


def _shrunk(stack: Tensor) -> Tensor:
    height, width = stack.shape[1:]
    factor = min(_FIT_SIDE / width, _FIT_SIDE / height)
    if factor >= 1:
        return stack
    size = max(1, int(height * factor)), max(1, int(width * factor))
    return interpolate(stack[:, None], size, mode="nearest-exact")[:, 0]


def _aligned(stack: Tensor, parameters: np.ndarray) -> Tensor:
    scale, shift = (torch.from_numpy(part).to(stack)[:, None, None] for part in np.split(parameters, 2))
    return stack * scale + shift


def _cost(parameters: np.ndarray, stack: Tensor) -> float:
    aligned = _aligned(stack, parameters)
    pairs = combinations(range(len(aligned)), 2)
    spread = sum(((aligned[i] - aligned[j]) ** 2).mean().sqrt().item() for i, j in pairs)
    middle = aligned.median(dim=0).values
    return spread + _PULL * (middle.min().abs().item() + (1.0 - middle.max()).abs().item())
