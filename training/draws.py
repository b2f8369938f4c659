"""Where a step's random numbers come from."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Draws(Protocol):
    """Random numbers for the rows of a batch, the next ones at every call; (rows, *shape)."""

    count: int

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1)."""
        ...

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        ...


class RowDraws:
    """On the CPU, each row by a generator of its own: a function of (seed, step, row) alone."""

    def __init__(self, seed: int, step: int, rows: Iterable[int]) -> None:
        self._rows = [_generator(seed, step, row) for row in rows]
        self.count = len(self._rows)

    def uniform(self, *shape: int) -> Tensor:
        return torch.stack([torch.rand(shape, generator=row) for row in self._rows])

    def normal(self, *shape: int) -> Tensor:
        return torch.stack([torch.randn(shape, generator=row) for row in self._rows])


class BatchDraws:
    """On a device, for the whole batch at once, of which ``rows`` are kept: a function of (seed, step, batch size, row)
    and of the model of the device. On a GPU this takes a few kernels in place of many calls for every row."""

    def __init__(self, seed: int, step: int, batch_size: int, rows: slice, device: torch.device) -> None:
        self._generator = _generator(seed, step, device=device)
        self._all, self._own, self._device = batch_size, rows, device
        self.count = rows.stop - rows.start

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self._all, *shape, generator=self._generator, device=self._device)[self._own]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self._all, *shape, generator=self._generator, device=self._device)[self._own]


def _generator(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]) >> 1)
