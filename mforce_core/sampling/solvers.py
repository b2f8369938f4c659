"""Steps of both streams, from their noise levels before a step to those after it.

Every solver works on each stream alone, on its own levels, from the prediction of its clean value:
``x(t') = (t' / t) x + (1 - t' / t) x_0`` is exact where x_0 does not change on the way.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..release import MIN_DEPTH_TIME
from .guidance import Prediction
from .schedule import Levels


class Streams(NamedTuple):
    """A value of each stream: states, clean values or noise."""

    rgb: Tensor
    depth: Tensor


#: predict(state, number): what the model says of a state at the path's levels of that number.
Predict = Callable[[Streams, int], Prediction]
#: Noise in the shape of a tensor.
Fresh = Callable[[Tensor], Tensor]


class Solver(Protocol):
    """Takes the steps of one rollout, in order."""

    def step(
        self, predict: Predict, state: Streams, number: int, now: Levels, after: Levels
    ) -> tuple[Streams, Prediction]:
        """The state at ``after``, which is nowhere above ``now``, and what was predicted at ``now``.

        A stream whose level stays comes back as it is.
        """
        ...


def depth_velocity(depth: Tensor, depth_x0: Tensor, t_depth: float) -> Tensor:
    """Velocity eps - x_0 from an x-prediction at noise level t_depth, which divides with a floor."""
    return (depth - depth_x0) / max(t_depth, MIN_DEPTH_TIME)


def euler_step(rgb: Tensor, depth: Tensor, predicted: Prediction, now: Levels, after: Levels) -> tuple[Tensor, Tensor]:
    """``x + (t_next - t) * velocity`` for each stream on its own noise levels.

    Args:
        rgb, depth: the state at ``now``, (B, N, Cin) and (B, N, Cd) float32.
        predicted: at ``now``.

    Returns:
        The state at ``after``. A stream whose noise level stays is frozen and comes back as it is.
    """
    if after.rgb != now.rgb:
        rgb = rgb + (after.rgb - now.rgb) * predicted.rgb_velocity
    if after.depth != now.depth:
        depth = depth + (after.depth - now.depth) * depth_velocity(depth, predicted.depth_x0, now.depth)
    return rgb, depth


def clean_values(state: Streams, predicted: Prediction, now: Levels) -> Streams:
    """The clean values x_0 that a prediction amounts to."""
    return Streams(state.rgb - now.rgb * predicted.rgb_velocity, predicted.depth_x0)


def move(x: Tensor, clean: Tensor, now: float, after: float) -> Tensor:
    """From one noise level to a lower one along the straight line that a clean value and a state define."""
    return x if after == now else torch.lerp(clean, x, after / now)


def add_noise(x: Tensor, noise: Tensor, now: float, after: float) -> Tensor:
    """From one noise level to a higher one: the state keeps its clean value, and its noise grows to ``after``."""
    keep = (1 - after) / (1 - now)
    return keep * x + max(after**2 - (keep * now) ** 2, 0.0) ** 0.5 * noise


class Euler:
    """The release's: one prediction a step, first order, with the floor under the depth's noise level."""

    def step(
        self, predict: Predict, state: Streams, number: int, now: Levels, after: Levels
    ) -> tuple[Streams, Prediction]:
        predicted = predict(state, number)
        return Streams(*euler_step(*state, predicted, now, after)), predicted


class Heun:
    """Heun's method on the velocities (as in Karras et al., arXiv 2206.00364): two predictions a step, second order.

    A stream that becomes clean is moved by its first prediction alone.
    """

    def step(
        self, predict: Predict, state: Streams, number: int, now: Levels, after: Levels
    ) -> tuple[Streams, Prediction]:
        predicted = predict(state, number)
        clean = clean_values(state, predicted, now)
        ahead = Streams(*(move(*stream) for stream in zip(state, clean, now, after, strict=True)))
        if not any(0 < end < begin for begin, end in zip(now, after, strict=True)):
            return ahead, predicted
        clean_ahead = clean_values(ahead, predict(ahead, number + 1), after)
        streams = zip(state, clean, ahead, clean_ahead, now, after, strict=True)
        return Streams(*(self._corrected(*stream) for stream in streams)), predicted

    @staticmethod
    def _corrected(x: Tensor, clean: Tensor, ahead: Tensor, clean_ahead: Tensor, now: float, after: float) -> Tensor:
        if not 0 < after < now:
            return ahead
        return x + (after - now) * ((x - clean) / now + (ahead - clean_ahead) / after) / 2


class Multistep:
    """DPM-Solver++(2M) (Lu et al., arXiv 2211.01095): one prediction a step, second order.

    The clean value is continued from the last two predictions, as a line over the log-SNR ``log((1 - t) / t)``. The
    first step, those to or from the ends of the scale (t = 1 and t = 0), and those after noise was added are first
    order; give it short steps there (a sigma above 1 in the shift).
    """

    def __init__(self) -> None:
        self._before: tuple[int, Levels, Streams] | None = None

    def step(
        self, predict: Predict, state: Streams, number: int, now: Levels, after: Levels
    ) -> tuple[Streams, Prediction]:
        predicted = predict(state, number)
        clean = clean_values(state, predicted, now)
        last, before, clean_before = self._before or (number, now, clean)
        if last != number - 1:  # noise was added since
            before, clean_before = now, clean
        values = zip(state, clean, clean_before, before, now, after, strict=True)
        ahead = Streams(*(self._moved(*stream) for stream in values))
        self._before = number, now, clean
        return ahead, predicted

    @staticmethod
    def _moved(x: Tensor, clean: Tensor, clean_before: Tensor, before: float, now: float, after: float) -> Tensor:
        if 0 < after < now < before < 1:
            ratio = (log_snr(after) - log_snr(now)) / (log_snr(now) - log_snr(before))
            clean = clean + ratio / 2 * (clean - clean_before)
        return move(x, clean, now, after)


class Ancestral:
    """Euler with noise anew in every step: below its goal by Euler, then up to it with fresh noise.

    Noise and denoising are in the proportion of the diffusion process whose marginals are the flow's.
    """

    def __init__(self, fresh: Fresh) -> None:
        self._fresh = fresh

    def step(
        self, predict: Predict, state: Streams, number: int, now: Levels, after: Levels
    ) -> tuple[Streams, Prediction]:
        predicted = predict(state, number)
        clean = clean_values(state, predicted, now)
        values = zip(state, clean, now, after, strict=True)
        return Streams(*(self._moved(*stream) for stream in values)), predicted

    def _moved(self, x: Tensor, clean: Tensor, now: float, after: float) -> Tensor:
        if not 0 < after < now:
            return move(x, clean, now, after)
        below = after * after / now
        return add_noise(move(x, clean, now, below), self._fresh(x), below, after)


def log_snr(t: float) -> float:
    """log((1 - t) / t), half the logarithm of the signal-to-noise ratio of a flow at noise level t in (0, 1)."""
    return math.log((1 - t) / t)


#: The solvers of ``release.SAMPLERS``, named as ComfyUI names them, and how a rollout gets its own.
SOLVERS: dict[str, Callable[[Fresh], Solver]] = {
    "euler": lambda fresh: Euler(),
    "heun": lambda fresh: Heun(),
    "dpmpp_2m": lambda fresh: Multistep(),
    "euler_ancestral": Ancestral,
}
