"""The noise of a rollout, drawn on the CPU so that a seed gives the same on every device."""

from collections.abc import Sequence

import torch
from torch import Tensor


class NoiseSource:
    """Gaussian noise from a seed for the whole batch, or from one for each of its pictures.

    With seeds of their own, pictures start from the same noise whatever else is in their batch.
    """

    def __init__(self, seed: int | Sequence[int]) -> None:
        self.of_batch = isinstance(seed, int)
        seeds = [seed] if isinstance(seed, int) else seed
        self.generators = [torch.Generator().manual_seed(one) for one in seeds]

    def draw(self, shape: Sequence[int]) -> Tensor:
        """(B, ...) float32 on the CPU; with seeds of their own B is their count."""
        if self.of_batch:
            return torch.randn(tuple(shape), generator=self.generators[0])
        return torch.cat([torch.randn((1, *shape[1:]), generator=generator) for generator in self.generators])

    def like(self, state: Tensor) -> Tensor:
        """Noise in the shape of a state and on its device."""
        return self.draw(state.shape).to(state)


def draw_noise(
    rgb_shape: tuple[int, ...], depth_shape: tuple[int, ...], seed: int | Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Starting noise of both streams, RGB drawn first."""
    source = NoiseSource(seed)
    return source.draw(rgb_shape), source.draw(depth_shape)
