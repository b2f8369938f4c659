"""The noise levels of both streams along a path, looked up by the one number that ComfyUI's samplers step on.

Core hands a sampler a falling series of sigmas and the model one sigma per call. On a path that number says how far the
run has come, and the two noise levels are read from it: exact at the path's own sigmas, straight lines in between. The
sigmas of a path with n steps are those of the release's schedule with n steps, so that start and end percents of
conditionings, LoRA hooks and the like cut a run where they say, and the release's tilt keeps the sigmas that it has.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...mforce_core.release import SHIFT_MU, SHIFT_SIGMA
from ...mforce_core.sampling.path import NoisePath
from ...mforce_core.sampling.schedule import shift


@dataclass(frozen=True)
class Clocks:
    """Noise levels of both streams by sigma.

    Args:
        sigmas: (steps + 1,) float32, falling from 1 to 0.
        rgb, depth: noise levels at those, (steps + 1,) float32 each.
    """

    sigmas: Tensor
    rgb: Tensor
    depth: Tensor

    @classmethod
    def of(cls, path: NoisePath) -> Clocks:
        """The clocks of a path, at the sigmas of the release's schedule with as many steps."""
        u = torch.linspace(1, 0, path.steps + 1)
        return cls(shift(u, SHIFT_MU, SHIFT_SIGMA), *path.tensors())

    def levels(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(t_rgb, t_depth) at sigmas of any shape, on their device."""
        table = self.sigmas.to(sigma.device).flip(0)
        above = torch.searchsorted(table, sigma.contiguous()).clamp(1, len(table) - 1)
        low, high = table[above - 1], table[above]
        weight = ((sigma - low) / (high - low)).clamp(0, 1)
        rgb, depth = (stream.to(sigma.device).flip(0) for stream in (self.rgb, self.depth))
        return _between(rgb, above, weight), _between(depth, above, weight)


def _between(values: Tensor, above: Tensor, weight: Tensor) -> Tensor:
    """Straight line between neighbors of a table; exactly their values at weights of 0 and 1."""
    low, high = values[above - 1], values[above]
    return torch.where(weight == 1, high, torch.lerp(low, high, weight))
