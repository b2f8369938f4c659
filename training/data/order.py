"""In which order a run sees its samples.

Every answer is a function of the arguments and the step alone, so that a resumed run sees the data that an
uninterrupted one would, and any number of processes the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

#: Steps whose shapes and shares are drawn together.
_BLOCK = 1024


class Pick(NamedTuple):
    """A row of a batch: the data set, the shape of its picture, the sample among those of this set and shape, and how
    often all of them have been used before."""

    part: int
    shape: int
    sample: int
    epoch: int


class Order:
    """Which samples a step takes from several data sets with pictures of several shapes.

    All pictures of a batch have one shape, drawn as often as the weighted sets hold it. Its rows are shared among the
    sets by weight, by systematic sampling, so that a share is never off by more than one row. The samples of one set
    and shape come in a fresh permutation every epoch.

    Args:
        counts: [part][shape], how many samples there are.
        weights: of the parts; their ratios count.
        batch_size: rows of a step.
        seed: of everything that is drawn.

    Raises:
        ValueError: a part without samples, or a weight that is not positive.
    """

    def __init__(self, counts: Sequence[Sequence[int]], weights: Sequence[float], batch_size: int, seed: int) -> None:
        self._counts = torch.tensor(counts, dtype=torch.float64)
        wanted = torch.tensor(weights, dtype=torch.float64)
        totals = self._counts.sum(1)
        if not (totals > 0).all() or not (wanted > 0).all():
            raise ValueError("every data set of a mixture needs samples and a weight above zero")
        self.batch_size, self.seed = batch_size, seed
        self._shares = (wanted / wanted.sum() / totals)[:, None] * self._counts  # (parts, shapes), sum 1
        self._decks = [
            [_Deck(count, seed, number) for number, count in enumerate(row, len(counts[0]) * part)]
            for part, row in enumerate(counts)
        ]
        self._recent: dict[int, tuple[Tensor, Tensor]] = {}  # the last block that was drawn
        self._before = [torch.zeros(self._counts.shape, dtype=torch.int64)]  # rows used before each block

    def picks(self, step: int) -> list[Pick]:
        """The rows of a step, in order."""
        block, place = divmod(step, _BLOCK)
        while len(self._before) <= block:
            self._before.append(self._before[-1] + self._used(len(self._before) - 1, _BLOCK))
        first = self._before[block] + self._used(block, place)
        shapes, rows = self._drawn(block)
        shape = int(shapes[place])
        picks = [
            Pick(part, shape, index, used // decks[shape].count)
            for part, decks in enumerate(self._decks)
            for used, index in enumerate(
                decks[shape].deal(int(first[part, shape]), int(rows[place, part])).tolist(), int(first[part, shape])
            )
        ]
        if len(self._decks) == 1:
            return picks
        state = np.random.SeedSequence((self.seed, step, len(picks))).generate_state(1, np.uint64)
        mixed = torch.randperm(len(picks), generator=torch.Generator().manual_seed(int(state[0]) >> 1))
        return [picks[row] for row in mixed.tolist()]

    def _used(self, block: int, steps: int) -> Tensor:
        """(parts, shapes) rows of the first ``steps`` of a block."""
        shapes, rows = self._drawn(block)
        used = torch.zeros(self._counts.shape, dtype=torch.int64)
        return used.index_add_(1, shapes[:steps], rows[:steps].T.contiguous())

    def _drawn(self, block: int) -> tuple[Tensor, Tensor]:
        """(steps,) the shape of every step of a block, and (steps, parts) the rows from every part."""
        if block not in self._recent:
            state = np.random.SeedSequence((self.seed, block)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0]) >> 1)
            draw = torch.rand(2, _BLOCK, generator=generator, dtype=torch.float64)
            shapes = torch.searchsorted(distribution(self._shares.sum(0)), draw[0], right=True)
            ends = torch.stack([distribution(column) for column in self._shares.T])[shapes]  # (steps, parts)
            reached = (ends * self.batch_size - draw[1][:, None]).ceil().clamp(0, self.batch_size).long()
            self._recent.clear()
            self._recent[block] = shapes, reached.diff(dim=1, prepend=torch.zeros(_BLOCK, 1, dtype=torch.int64))
        return self._recent[block]


class _Deck:
    """Samples that are dealt without end, in a fresh permutation every epoch."""

    def __init__(self, count: int, seed: int, number: int) -> None:
        self.count, self.seed, self.number = count, seed, number
        self._epochs: dict[int, Tensor] = {}

    def deal(self, first: int, count: int) -> Tensor:
        """Places ``first`` to ``first + count`` of the endless sequence, (count,)."""
        parts: list[Tensor] = []
        found = 0
        while found < count:
            epoch, offset = divmod(first + found, self.count)
            part = self._permutation(epoch)[offset : offset + count - found]
            parts.append(part)
            found += len(part)
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            seed = self.seed * 1_000_003 + epoch
            if self.number:
                state = np.random.SeedSequence((self.seed, epoch, self.number)).generate_state(1, np.uint64)
                seed = int(state[0]) >> 1
            while len(self._epochs) > 1:  # a batch spans two epochs at the most, unless the set is tiny
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[epoch] = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed))
        return self._epochs[epoch]


def distribution(shares: Tensor) -> Tensor:
    """Cumulative shares that end at exactly 1."""
    ends = torch.tensor(list(accumulate(shares.tolist())), dtype=torch.float64)
    ends = ends / ends[-1]
    last = int((shares > 0).nonzero()[-1])
    ends[last:] = 1.0
    return ends
