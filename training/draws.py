"""Where a step's random numbers come from."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

#: Rows of a batch that a device draws together.
BLOCK = 256


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
    """On a device, for blocks of the batch, of which ``rows`` are kept: a function of (seed, step, batch size, row) and
    of the model of the device. On a GPU this takes a few kernels in place of many calls for every row.

    Blocks have `BLOCK` rows, the last one what is left of the batch, and a generator each. Only those that hold some of
    ``rows`` are drawn: however large the batch is, a process draws less than two blocks more than it keeps.
    """

    def __init__(self, seed: int, step: int, batch_size: int, rows: slice, device: torch.device) -> None:
        self._device, self.count = device, rows.stop - rows.start
        self._blocks = [
            _Block(
                _generator(seed, step, number, device=device),
                min(BLOCK, batch_size - first),
                slice(max(rows.start - first, 0), rows.stop - first),
            )
            for number, first in enumerate(range(0, batch_size, BLOCK))
            if first < rows.stop and first + BLOCK > rows.start
        ]

    def uniform(self, *shape: int) -> Tensor:
        return self._drawn(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        return self._drawn(torch.randn, shape)

    def _drawn(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        # Copied, since a part of a block would hold on to the memory of all of it.
        return torch.cat(
            [
                draw(block.rows, *shape, generator=block.generator, device=self._device)[block.kept]
                for block in self._blocks
            ]
        )


class _Block(NamedTuple):
    """``rows`` that are drawn together, of which a slice is kept."""

    generator: torch.Generator
    rows: int
    kept: slice


def _generator(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]) >> 1)
