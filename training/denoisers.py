"""What the models of few-step distillation predict, and what a prediction amounts to."""

import torch
from torch import Tensor

from ..mforce_core.release import MIN_DEPTH_TIME
from ..mforce_core.sampling.solvers import Streams
from .jumps import Jumps
from .losses import Denoiser
from .recipe import Batch


class GuidedTeacher:
    """The frozen model with classifier-free guidance on both raw predictions, as in sampling.

    Args:
        model: the frozen model.
        null_text: (T, D) features of the empty caption, on its device.
        guided: whether any sample has guidance.
    """

    def __init__(self, model: Denoiser, null_text: Tensor, *, guided: bool) -> None:
        self.model, self.null_text, self.guided = model, null_text, guided

    def __call__(self, batch: Batch, jumps: Jumps, state: Streams, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Raw predictions at noise levels (B, 2)."""
        given = jumps.teacher_scale
        if not self.guided:
            return ask(self.model, state, batch.text, levels, batch.grid, given)
        texts = torch.cat((batch.text, self.null_text.expand_as(batch.text)))
        both = Streams(*(tokens.repeat(2, 1, 1) for tokens in state))
        raw = ask(self.model, both, texts, levels.repeat(2, 1), batch.grid, None if given is None else given.repeat(2))
        scale = jumps.cfg[:, None, None]

        def guide(part: Tensor) -> Tensor:
            prompted, empty = part.to(state.rgb).chunk(2)
            return empty + scale * (prompted - empty)

        velocity, depth_x0 = raw
        return guide(velocity), guide(depth_x0)


def ask(
    model: Denoiser, state: Streams, text: Tensor, levels: Tensor, grid: tuple[int, int], scale: Tensor | None
) -> tuple[Tensor, Tensor]:
    """A model's raw predictions, velocity of RGB and clean depth; ``scale`` (B,) for one that embeds it."""
    given = () if scale is None else (scale,)
    return model(*state, text, *levels.unbind(1), grid, *given)


def velocities(raw: tuple[Tensor, Tensor], state: Streams, levels: Tensor) -> Streams:
    """Of both streams, as the sampler's steps have them."""
    velocity, depth_x0 = raw
    return Streams(velocity.to(state.rgb), (state.depth - depth_x0.to(state.depth)) / clock(levels[:, 1]))


def clean_values(raw: tuple[Tensor, Tensor], state: Streams, levels: Tensor) -> Streams:
    """The clean values x_0 of both streams."""
    velocity, depth_x0 = raw
    return Streams(state.rgb - levels[:, 0, None, None] * velocity.to(state.rgb), depth_x0.to(state.depth))


def landing_of(raw: tuple[Tensor, Tensor], state: Streams, start: Tensor, end: Tensor) -> Streams:
    """Where one Euler step ends; levels (B, 2)."""
    lengths = (end - start)[:, :, None, None].unbind(1)
    steps = zip(state, lengths, velocities(raw, state, start), strict=True)
    return Streams(*(tokens + length * velocity for tokens, length, velocity in steps))


def clock(t_depth: Tensor) -> Tensor:
    """What the sampler divides by when a clean depth becomes a velocity, (B, 1, 1)."""
    return t_depth.clamp(min=MIN_DEPTH_TIME)[:, None, None]
