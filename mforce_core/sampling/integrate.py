"""The loop over the steps of a path, for any model and any layout of its two streams."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .guidance import Prediction
from .path import NoisePath
from .schedule import Levels
from .solvers import SOLVERS, Fresh, Predict, Streams, add_noise

#: callback(step, steps, rgb, depth_x0), step from 1: state after the step; raise in it to cancel.
Callback = Callable[[int, int, Tensor, Tensor], None]


class Given(NamedTuple):
    """Clean values of the streams that are not denoised; None for those that are."""

    rgb: Tensor | None = None
    depth: Tensor | None = None


def noised(clean: Tensor, noise: Tensor, level: float) -> Tensor:
    """``(1 - t) * clean + t * noise``; the clean values themselves at level 0."""
    return clean if level == 0 else torch.lerp(clean, noise, level)


def integrate(
    predict: Predict,
    state: Streams,
    path: NoisePath,
    *,
    given: Given = Given(),  # noqa: B008  # immutable
    solver: str = "euler",
    fresh: Fresh = torch.randn_like,
    callback: Callback | None = None,
) -> Streams:
    """Take both streams along a path.

    A given stream is mixed with noise to its level on the path before every prediction, with the same noise at all of
    them: pixels without measurement that hold this noise stay what they are at every level, and what the stream tells
    the model is what its lowest level so far has told. At level 0 it is the clean stream, frozen.

    Args:
        predict: the model; called with the state and the number of the levels on the path.
        state: at the path's first levels, any shape; of a given stream the noise that it is mixed with.
        given: clean values of the streams that are not denoised.
        solver: of :data:`.solvers.SOLVERS`.
        fresh: draws the noise of steps that rise and of stochastic solvers.
        callback: called after every step.

    Returns:
        The state at the path's last levels; of a given stream its clean values.

    Raises:
        ValueError: an unknown solver, or a step in which one denoised stream rises and the other falls.
    """
    if solver not in SOLVERS:
        raise ValueError(f"the sampler must be one of {', '.join(SOLVERS)}, got {solver!r}")
    levels = path.levels
    step_of, noise = SOLVERS[solver](fresh), state
    denoised = [clean is None for clean in given]
    _check_directions(levels, denoised)

    def at(number: int, state: Streams) -> Streams:
        parts = zip(given, noise, state, levels[number], strict=True)
        return Streams(*(x if clean is None else noised(clean, eps, t) for clean, eps, x, t in parts))

    def look(state: Streams, number: int) -> Prediction:
        return predict(at(number, state), number)

    for number, (now, after) in enumerate(pairwise(levels)):
        # The solver moves the streams that are denoised and fall.
        falling = [own and end < begin for own, begin, end in zip(denoised, now, after, strict=True)]
        depth_x0 = state.depth
        if any(falling):
            goal = Levels(*(end if falls else begin for falls, begin, end in zip(falling, now, after, strict=True)))
            state, predicted = step_of.step(look, at(number, state), number, now, goal)
            depth_x0 = predicted.depth_x0
        rising = [own and end > begin for own, begin, end in zip(denoised, now, after, strict=True)]
        parts = zip(rising, state, now, after, strict=True)
        state = Streams(*(add_noise(x, fresh(x), begin, end) if up else x for up, x, begin, end in parts))
        if callback is not None:
            shown = at(number + 1, state)
            callback(number + 1, path.steps, shown.rgb, depth_x0 if given.depth is None else given.depth)
    return Streams(*(x if clean is None else clean for clean, x in zip(given, state, strict=True)))


def _check_directions(levels: list[Levels], denoised: list[bool]) -> None:
    for number, (now, after) in enumerate(pairwise(levels)):
        changes = [end - begin for own, begin, end in zip(denoised, now, after, strict=True) if own]
        if changes and min(changes) < 0 < max(changes):
            raise ValueError(f"step {number + 1} of the path adds noise to one stream and takes it from the other")
