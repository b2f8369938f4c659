"""Few-step distillation: the student's one step is to do what its teacher does in several, with guidance.

From a point of a path the teacher goes on for n Euler steps with classifier-free guidance; if that is not the whole
jump, the student itself, without gradient, takes the rest. The mean velocity of that way is what the student is to
predict at the start: its own Euler step over the whole jump then ends where the way ended.

- The teacher goes all the way: trajectories are regressed piece by piece, as progressive distillation (Salimans & Ho,
  arXiv 2202.00512) and PeRFlow (Yan et al., arXiv 2405.07510) do.
- The teacher goes a small part: consistency of the student along the trajectory, in as many phases as there are steps
  (Wang et al., arXiv 2405.18407); with one step consistency distillation (Song et al., arXiv 2303.01469). In the limit
  of a small part it is MeanFlow (Geng et al., arXiv 2505.13447) with the end of the jump as the target time: the
  residuals are equal but for a factor (a test).

No target time enters the model, so a student has the teacher's tensors and no others: the end of a jump follows from
its start, as all steps of a student are on one grid. Where these embed a guidance scale, the student gets the scale at
which its teacher was guided (Meng et al., arXiv 2210.03142), so that one student serves all of them.
"""

from itertools import pairwise

import torch
from torch import Tensor

from ..mforce_core.sampling.solvers import Streams
from .config import RecipeConfig
from .denoisers import GuidedTeacher, ask, clock, landing_of, velocities
from .jumps import Jumps
from .losses import (
    Denoiser,
    Errors,
    Losses,
    Totals,
    counted_pixels,
    depth_error,
    gradient_error,
    squared_error,
    weighted_depth,
)
from .matching import Matching
from .noise import noisy_depth
from .recipe import Batch


class Distillation:
    """From a batch and its jumps to the losses of a step.

    Args:
        student: what is trained.
        teacher: the frozen model.
        recipe: weights of the losses.
        student_finishes: whether the teacher leaves a part of the jumps to the student.
        trajectory_weight: of the terms against the teacher's way; 0 leaves them out.
        data_weight: of the term on measured depth; 0 leaves it out.
        matching: of the distributions, beside or in place of the ways.
    """

    def __init__(
        self,
        student: Denoiser,
        teacher: GuidedTeacher,
        recipe: RecipeConfig,
        *,
        student_finishes: bool,
        trajectory_weight: float = 1.0,
        data_weight: float = 0.0,
        matching: Matching | None = None,
    ) -> None:
        self.student, self.teacher, self.recipe, self.matching = student, teacher, recipe, matching
        self.student_finishes = student_finishes
        self.trajectory_weight, self.data_weight = trajectory_weight, data_weight

    def __call__(self, batch: Batch, jumps: Jumps, totals: Totals) -> Losses:
        """This batch's share of the losses of a step; a stream that stays where it is in a jump has none."""
        batch = batch._replace(text=torch.where(jumps.empty[:, None, None], self.teacher.null_text, batch.text))
        state, start, end = self.arrive(batch, jumps), jumps.levels[:, 0], jumps.levels[:, -1]
        wanted = self.mean_velocity(batch, jumps, state) if self.trajectory_weight else None
        raw = ask(self.student, state, batch.text, start, batch.grid, jumps.scale)
        found = Losses({}, {})
        if wanted is not None:
            found = self._against_teacher(batch, jumps, totals, state, raw, wanted)
        if self.data_weight:
            weight = self.data_weight * self.recipe.depth_loss_weight
            found.terms["data"] = weight * self._against_data(raw[1], batch, start, end).sum() / totals.rows
        if self.matching is not None:
            found.terms.update(self.matching(batch, jumps, totals, state, raw))
        return found

    def _against_teacher(
        self, batch: Batch, jumps: Jumps, totals: Totals, state: Streams, raw: tuple[Tensor, Tensor], wanted: Streams
    ) -> Losses:
        """The student's predictions at the start against the mean velocity of the teacher's way."""
        start, (velocity, depth_x0), weight = jumps.levels[:, 0], raw, self.trajectory_weight
        moves_rgb, moves_depth = (jumps.levels[:, -1] < start).unbind(1)

        error = squared_error(velocity, wanted.rgb)
        terms = {"rgb": weight * (error * moves_rgb).sum() / totals.rows}
        wanted_x0 = state.depth - clock(start[:, 1]) * wanted.depth
        depth_error = weighted_depth(depth_x0 - wanted_x0, wanted_x0, start[:, 1], self.recipe.depth_weighting)
        by_sample = depth_error.square().mean((1, 2))
        terms["depth"] = weight * self.recipe.depth_loss_weight * (by_sample * moves_depth).sum() / totals.rows
        if self.recipe.gradient_weight:
            counted = torch.ones_like(wanted_x0, dtype=torch.bool)
            matching = gradient_error(depth_x0, wanted_x0, counted, batch.grid)
            terms["gradient"] = weight * self.recipe.gradient_weight * (matching * moves_depth).sum() / totals.rows
        errors = {
            "rgb": Errors(error.detach(), start[:, 0], moves_rgb),
            "depth": Errors(by_sample.detach(), start[:, 1], moves_depth),
        }
        return Losses(terms, errors)

    def _against_data(self, depth_x0: Tensor, batch: Batch, start: Tensor, end: Tensor) -> Tensor:
        """Mean error over a sample's measured depth, (B,); 0 where the picture still has noise or depth keeps some.

        Under a noisy picture many depths are right, and their mean, which data teaches, is a blur.
        """
        assert batch.depth is not None
        counted = counted_pixels(batch.depth, start[:, 1]) & ((start[:, 0] == 0) & (end[:, 1] == 0))[:, None, None]
        squared = depth_error(depth_x0, batch.depth, start[:, 1], self.recipe.depth_weighting) * counted
        return squared.sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)

    @torch.no_grad()
    def arrive(self, batch: Batch, jumps: Jumps) -> Streams:
        """The start of the jumps; the student itself takes the steps that lead there, where there are any."""
        state = start_of(batch, jumps)
        for levels, there in () if jumps.before is None else pairwise(jumps.before.unbind(1)):
            raw = ask(self.student, state, batch.text, levels, batch.grid, jumps.scale)
            state = landing_of(raw, state, levels, there)
        return state

    @torch.no_grad()
    def mean_velocity(self, batch: Batch, jumps: Jumps, state: Streams) -> Streams:
        """Of the whole way from the start of a jump to its end, by stream; 0 for one that does not move."""
        moved = [torch.zeros_like(tokens) for tokens in state]
        lengths = jumps.levels.diff(dim=1)  # (B, n + 1, 2), nowhere above 0
        steps = lengths.shape[1]
        for number in range(steps if self.student_finishes else steps - 1):
            levels = jumps.levels[:, number]
            last = number == steps - 1
            if last:
                raw = ask(self.student, state, batch.text, levels, batch.grid, jumps.scale)
            else:
                raw = self.teacher(batch, jumps, state, levels)
            by_stream = zip(velocities(raw, state, levels), lengths[:, number].unbind(1), strict=True)
            steps_taken = [length[:, None, None] * velocity for velocity, length in by_stream]
            moved = [done + step for done, step in zip(moved, steps_taken, strict=True)]
            state = Streams(*(tokens + step for tokens, step in zip(state, steps_taken, strict=True)))
        way = jumps.levels[:, -1] - jumps.levels[:, 0]
        divisors = torch.where(way < 0, way, -1).unbind(1)
        return Streams(*(done / divisor[:, None, None] for done, divisor in zip(moved, divisors, strict=True)))


def start_of(batch: Batch, jumps: Jumps) -> Streams:
    """Both streams at the start of the jumps, or of the student's steps that lead there: data mixed with noise; depth
    that is not measured is noise."""
    assert batch.depth is not None
    t_rgb, t_depth = (jumps.levels if jumps.before is None else jumps.before)[:, 0].unbind(1)
    rgb = torch.lerp(batch.rgb, jumps.rgb, t_rgb[:, None, None])
    return Streams(rgb, noisy_depth(batch.depth, jumps.depth, t_depth))
