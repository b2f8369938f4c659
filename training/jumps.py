"""What few-step distillation trains on: jumps along paths through the two noise levels.

A student of S steps takes a path in S jumps. A sample starts at the beginning of one of them or inside of it, and its
student is to reach the end in one step. It starts from data that is mixed with noise, or, on policy, from where the
student itself arrives when it takes the steps before.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..mforce_core.model.config import Schedule
from ..mforce_core.sampling.path import PURE_NOISE
from ..mforce_core.sampling.path_spec import PathSpec
from .config import DistillationConfig, RecipeConfig
from .draws import Draws
from .recipe import Batch, draw_tasks

#: Equal parts, in steps of the schedule, of every jump, at which samples can start and the teacher can step.
PARTS = 16

#: Share of image-to-depth samples that get the empty caption, as the release does there.
_EMPTY_CAPTION = 0.5


class Jumps(NamedTuple):
    """Noise of the streams in token shapes, and where a sample goes.

    ``levels`` (B, n + 2, 2): noise levels of RGB and depth at the start, after each of the teacher's n steps, and at
    the end of the jump. ``cfg`` (B,) is the teacher's guidance scale, ``empty`` (B,) whose caption is the empty one.
    ``scale`` and ``teacher_scale`` (B,) are the inputs of student and teacher that embed a guidance scale, else None.
    ``noised`` (B, 2): the levels to which ``noise_rgb`` and ``noise_depth`` bring what has arrived at the end, where
    distributions are matched, else None.
    ``before`` (B, S, 2): the levels between the student's own steps that lead to the start, where samples are on
    policy, else None. Data is mixed with noise at the first; all are the same where the start comes from data.
    """

    rgb: Tensor
    depth: Tensor
    levels: Tensor
    cfg: Tensor
    empty: Tensor
    scale: Tensor | None = None
    teacher_scale: Tensor | None = None
    noised: Tensor | None = None
    noise_rgb: Tensor | None = None
    noise_depth: Tensor | None = None
    before: Tensor | None = None


class JumpPaths:
    """The paths of all tasks in fine steps, from which jumps are drawn.

    Args:
        embeds: whether the models embed a guidance scale.

    Raises:
        ValueError: a path that cannot be read, rises, does not lead from noise to clean, or cannot be refined.
    """

    def __init__(
        self, config: DistillationConfig, recipe: RecipeConfig, schedule: Schedule, *, embeds: bool = False
    ) -> None:
        self.config, self.recipe, self.embeds = config, recipe, embeds
        specs = [PathSpec.parse(text) for text in ("i2d", "d2i", config.path, *config.other_paths)]
        built = [spec.build(config.steps * PARTS, schedule).tensors() for spec in specs]
        paths = [torch.stack(pair, dim=-1) for pair in built]
        ends = all((path[0] >= PURE_NOISE).all() and (path[-1] == 0).all() for path in paths[2:])
        if not ends or any((path.diff(dim=0) > 0).any() for path in paths):
            raise ValueError("distillation.path and other_paths must lead from noise to clean without rising")
        self.levels = torch.stack(paths)  # (paths, S * PARTS + 1, 2)

    def draw(self, batch: Batch, draws: Draws) -> Jumps:
        """Jumps for a batch, each a function of its row's draws.

        A sample without any measured depth is always joint, and stays where it is, which trains nothing, unless its
        depth is still all noise or the student's own.
        """
        assert batch.depth is not None
        unknown = ~(batch.depth > 0).flatten(1).any(1)
        tasks = draw_tasks(self.recipe, unknown, draws)
        drawn = draws.uniform(5)
        path = torch.where(tasks.i2d, 0, torch.where(tasks.d2i, 1, self.joint_path(drawn[:, 0])))
        number = (drawn[:, 1] * self.config.steps).long().clamp(max=self.config.steps - 1)
        inside = 1 + (drawn[:, 3] * (PARTS - 1)).long().clamp(max=PARTS - 2)
        between = drawn[:, 2] < self.config.between
        start = number * PARTS + torch.where(between, inside, 0)
        end = (number + 1) * PARTS
        places = torch.cat([teacher_places(start, end, self.config), end[:, None]], dim=1)
        empty = (drawn[:, 4] < _EMPTY_CAPTION) & tasks.i2d
        rgb, depth = draws.normal(*batch.rgb.shape[1:]), draws.normal(*batch.depth.shape[1:])
        table = self.levels.to(path.device)
        levels, before, idle = table[path[:, None], places], None, unknown & (table[path, start, 1] < 1)
        if self.config.on_policy:
            own = (draws.uniform() < self.config.on_policy) & ~between
            steps = torch.arange(self.config.steps, device=path.device).expand(draws.count, -1)
            ways = steps.minimum(number[:, None]) * PARTS
            before = table[path[:, None], torch.where(own[:, None], ways, start[:, None])]
            idle &= ~own
        levels = torch.where(idle[:, None, None], levels[:, :1], levels)
        cfg, scale, teacher_scale = self._guidance(draws, rgb.device)
        # Image to depth has a scale of its own, whatever the student is given there; none up to 1 is guidance.
        cfg = torch.where(tasks.i2d, self.config.i2d_cfg, cfg).clamp(min=1)
        jumps = Jumps(rgb, depth, levels, cfg, empty, scale, teacher_scale, before=before)
        return (
            jumps if not self.config.matching_weight else self._noised(jumps, table, path, number * PARTS, end, draws)
        )

    def _noised(self, jumps: Jumps, table: Tensor, path: Tensor, begin: Tensor, end: Tensor, draws: Draws) -> Jumps:
        """With new noise up to a place that is drawn evenly from the student's step, whose places in the table of
        levels are given.

        Where a stream that leaves pure noise is back in it, nothing is left of where it has arrived: such places are
        not drawn.
        """
        arrived = jumps.levels[:, -1]
        moves = arrived < jumps.levels[:, 0]
        low = (
            torch.where(moves & (arrived < PURE_NOISE), (table >= PURE_NOISE).sum(1)[path], 0).amax(1).clamp(min=begin)
        )
        place = low + (draws.uniform() * (end - low)).long()
        noised = torch.where(moves.any(1, keepdim=True), table[path, place.clamp(max=end - 1)], arrived)
        noise_rgb, noise_depth = draws.normal(*jumps.rgb.shape[1:]), draws.normal(*jumps.depth.shape[1:])
        return jumps._replace(noised=noised, noise_rgb=noise_rgb, noise_depth=noise_depth)

    def _guidance(self, draws: Draws, device: torch.device) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """``cfg``, ``scale`` and ``teacher_scale`` of `Jumps`."""
        none = torch.ones(draws.count, device=device)
        if not self.embeds:
            return none * self.config.cfg, None, None
        low, high = self.config.scales
        scale = low + (high - low) * draws.uniform()
        return (none, scale, scale) if self.config.teacher_scale == "input" else (scale, scale, none)

    def joint_path(self, draw: Tensor) -> Tensor:
        """Index of the path for uniform draws (B,).

        It is the model's own in ``path_share`` of the samples, else one of the others.
        """
        share, others = self.config.path_share, len(self.config.other_paths)
        if not others:
            return torch.full_like(draw, 2, dtype=torch.long)
        other = ((draw - share) / max(1 - share, 1e-6) * others).long().clamp(0, others - 1)
        return torch.where(draw < share, 2, 3 + other)


def teacher_places(start: Tensor, end: Tensor, config: DistillationConfig) -> Tensor:
    """Places (B, n + 1) on the fine path at the start and after each of the teacher's steps.

    The teacher goes ``teacher_share`` of what is left of the jump, at least one part of the path.
    """
    length = ((end - start) * config.teacher_share).round().long().clamp(min=1)
    steps = torch.arange(config.teacher_steps + 1, device=start.device) / config.teacher_steps
    return start[:, None] + (length[:, None] * steps).round().long()
