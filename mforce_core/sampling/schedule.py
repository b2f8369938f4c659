"""Noise levels of a rollout: the timestep shift of rectified flow models and the tilt between the two streams.

``shift`` is FLUX.2's, after the resolution-dependent shift of SD3 (Esser et al., arXiv 2403.03206). The tilt is the
Moebius map of Modality Forcing (Duisterhof et al., arXiv 2606.13676): it decides which stream resolves first.

All of it is computed in float32, as in the release: one unit in the last place of a noise level is 6e-5 of the largest
angle of its sinusoidal embedding.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..model.config import Schedule
from ..release import MODES, Mode


class Levels(NamedTuple):
    """Noise levels of the two streams at one moment of a rollout: 1 is pure noise, 0 is clean."""

    rgb: float
    depth: float


def shift(u: Tensor, mu: float, sigma: float) -> Tensor:
    """``e^mu / (e^mu + (1/u - 1)^sigma)`` with shift(0) = 0; u in [0, 1], any shape."""
    safe = u.clamp(min=torch.finfo(u.dtype).tiny)
    shifted = math.exp(mu) / (math.exp(mu) + (1 / safe - 1) ** sigma)
    return torch.where(u > 0, shifted, torch.zeros_like(u))


def tilt(t: Tensor, log2_alpha: float) -> Tensor:
    """Depth noise level at RGB noise level t: ``A t / (1 + (A - 1) t)`` with ``A = 2 ** log2_alpha``.

    Positive: RGB resolves first (depth stays noisier). Zero: both together. Negative: depth resolves first.
    """
    alpha = 2.0**log2_alpha
    return (alpha * t / (1 + (alpha - 1) * t)).clamp(max=1)  # at t = 1 the denominator is alpha, or rounds to 0


def rollout_times(
    steps: int,
    *,
    mode: Mode = "joint",
    log2_alpha: float | None = None,
    schedule: Schedule | None = None,
) -> tuple[Tensor, Tensor]:
    """Noise levels before the first step, between steps and after the last.

    Args:
        steps: number of Euler steps, at least 1.
        mode: "joint" denoises both streams, "i2d" freezes RGB at 0, "d2i" freezes depth at 0.
        log2_alpha: tilt between the streams, joint mode only; None gives depth its own shift instead.
        schedule: timestep shift; the release's by default.

    Returns:
        (t_rgb, t_depth), each (steps + 1,) float32, decreasing from 1 to 0 or constant 0.

    Raises:
        ValueError: unknown mode, fewer than one step, a tilt that is not finite.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    u = torch.linspace(1, 0, steps + 1, dtype=torch.float32)
    return released_levels(u, mode=mode, log2_alpha=log2_alpha, schedule=schedule)


def released_levels(
    u: Tensor, *, mode: Mode = "joint", log2_alpha: float | None = None, schedule: Schedule | None = None
) -> tuple[Tensor, Tensor]:
    """The path that the release takes, at the places u of it, (n,) float32 from 1 (its start) to 0 (its end).

    Args and errors are those of :func:`rollout_times`, whose places are evenly spaced.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if log2_alpha is not None and not abs(log2_alpha) <= 30:
        raise ValueError(f"log2_alpha must lie in -30..30, got {log2_alpha}")
    schedule = schedule or Schedule()
    t_rgb = shift(u, schedule.rgb_shift_mu, schedule.rgb_shift_sigma)
    if mode == "joint" and log2_alpha is not None:
        t_depth = tilt(t_rgb, log2_alpha)
    else:
        t_depth = shift(u, schedule.depth_shift_mu, schedule.depth_shift_sigma)
    if mode == "i2d":
        t_rgb = torch.zeros_like(t_rgb)
    elif mode == "d2i":
        t_depth = torch.zeros_like(t_depth)
    return t_rgb, t_depth
