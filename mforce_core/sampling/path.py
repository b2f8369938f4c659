"""A rollout's path through the square of noise levels: where both streams are before, between and after its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .schedule import Levels

#: A level from which on a stream starts from pure noise. A path may reach 1 to rounding alone: in float32, in which the
#: release computes it, the tilt of log2 alpha = -14 leaves the first level below 1 by up to 5e-4.
PURE_NOISE = 1 - 1e-3


@dataclass(frozen=True, init=False)
class NoisePath:
    """Noise levels of both streams before the first step, between steps and after the last; 1 is noise, 0 is clean.

    In a step, a level may fall (the stream is denoised), stay (it is frozen) or rise (noise is added, which costs no
    call of the model). :class:`.path_spec.PathSpec` makes paths from a few numbers.

    Args:
        rgb: (steps + 1,) numbers in [0, 1]; they are rounded to float32.
        depth: as many.

    Raises:
        ValueError: fewer than two levels, different counts, a level outside [0, 1].
    """

    rgb: tuple[float, ...]
    depth: tuple[float, ...]

    def __init__(self, rgb: Tensor | Sequence[float], depth: Tensor | Sequence[float]) -> None:
        object.__setattr__(self, "rgb", _as_levels("rgb", rgb))
        object.__setattr__(self, "depth", _as_levels("depth", depth))
        if len(self.rgb) != len(self.depth):
            raise ValueError(
                f"a path needs as many levels of RGB as of depth, got {len(self.rgb)} and {len(self.depth)}"
            )
        if len(self.rgb) < 2:
            raise ValueError("a path needs at least one step, that is two levels of each stream")

    @property
    def steps(self) -> int:
        """How many there are from the first levels to the last."""
        return len(self.rgb) - 1

    @property
    def levels(self) -> list[Levels]:
        """Both streams' levels, ``steps + 1`` pairs."""
        return [Levels(*pair) for pair in zip(self.rgb, self.depth, strict=True)]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """(rgb, depth), each (steps + 1,) float32."""
        return torch.tensor(self.rgb), torch.tensor(self.depth)


def _as_levels(name: str, values: Tensor | Sequence[float]) -> tuple[float, ...]:
    levels = torch.as_tensor(values, dtype=torch.float32).cpu()
    if levels.ndim != 1:
        raise ValueError(f"the {name} levels of a path must be a list of numbers, got shape {tuple(levels.shape)}")
    outside = ~((levels >= 0) & (levels <= 1))  # NaN is outside, too
    if outside.any():
        number = int(outside.nonzero()[0])
        raise ValueError(f"level {number} of {name} on the path is {float(levels[number]):g}, outside 0..1")
    return tuple(levels.tolist())
