"""Noise levels and noise: t = 0 is clean, t = 1 pure noise, x_t = (1 - t) x_0 + t eps."""

from functools import cache
from math import erf, exp, log, pi, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from .config import RecipeConfig
from .draws import Draws
from .recipe import Batch, draw_tasks


class Noise(NamedTuple):
    """Noise levels (B,) and the Gaussian noise of the streams, in token shapes; no depth where the batch has none."""

    t_rgb: Tensor
    t_depth: Tensor | None
    rgb: Tensor
    depth: Tensor | None


def draw_noise(batch: Batch, recipe: RecipeConfig, draws: Draws) -> Noise:
    """Independent noise levels of the streams; i2d samples get t_rgb = 0, d2i samples t_depth = 0.

    A sample without any measured depth is one whose depth is all noise: t_depth = 1, and its image is always trained.
    """
    normal_rgb, normal_depth = draws.normal(), draws.normal()
    t_rgb = logit_normal_times(normal_rgb, recipe.time_mu)
    unknown = torch.zeros_like(t_rgb, dtype=torch.bool)
    if batch.depth is not None:
        unknown = ~(batch.depth > 0).flatten(1).any(1)
    tasks = draw_tasks(recipe, unknown, draws)
    rgb = draws.normal(*batch.rgb.shape[1:])
    if batch.depth is None:
        return Noise(t_rgb, None, rgb, None)
    times = plateau_times if recipe.depth_times == "plateau" else logit_normal_times
    t_depth = times(normal_depth, recipe.time_mu).masked_fill(tasks.d2i, 0).masked_fill(unknown, 1)
    depth = draws.normal(*batch.depth.shape[1:])
    return Noise(t_rgb.masked_fill(tasks.i2d, 0), t_depth, rgb, depth)


def logit_normal_times(normal: Tensor, mu: float) -> Tensor:
    """Noise levels ``sigmoid(mu + n)`` of standard normal draws: a logit-normal draw after FLUX's shift by ``mu``
    (Esser et al., arXiv 2403.03206, section 3.1)."""
    return torch.sigmoid(mu + normal)


def plateau_times(normal: Tensor, mu: float) -> Tensor:
    """Noise levels of standard normal draws whose density is logit-normal up to its mode and constant from there to 1.

    The paper names the plateau logit-normal distribution (section 4.1) without a formula; this reading gives high noise
    levels, where depth is decided, as much weight as the mode.
    """
    mode, below, height = _plateau(mu)
    share = torch.special.ndtr(normal.double()) * (below + height * (1 - mode))
    rising = torch.sigmoid(mu + torch.special.ndtri(share.clamp(max=below)))
    return torch.where(share < below, rising, mode + (share - below) / height).clamp(max=1).to(normal.dtype)


@cache
def _plateau(mu: float) -> tuple[float, float, float]:
    """Mode m of the logit-normal density with sigma = 1, its mass below m and its value at m.

    The density is stationary where logit(t) = mu + 2t - 1; the difference rises with t, so that bisection finds it.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if log(middle / (1 - middle)) < mu + 2 * middle - 1 else (low, middle)
    normal = log(low / (1 - low)) - mu
    height = exp(-normal * normal / 2) / sqrt(2 * pi) / (low * (1 - low))
    return low, (1 + erf(normal / sqrt(2))) / 2, height


def noisy_rgb(batch: Batch, noise: Noise) -> Tensor:
    """``(1 - t) x_0 + t eps``, (B, N, C)."""
    return torch.lerp(batch.rgb, noise.rgb, noise.t_rgb[:, None, None])


def noisy_depth(clean: Tensor, noise: Tensor, t_depth: Tensor) -> Tensor:
    """``(1 - t) x_0 + t eps`` where measured, pure noise elsewhere, at every t; tokens (B, N, p * p)."""
    return torch.where(clean > 0, torch.lerp(clean, noise, t_depth[:, None, None]), noise)
