"""In which order a run sees its samples."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def batch_indices(count: int, step: int, batch_size: int, seed: int) -> Tensor:
    """Indices (batch_size,) of a step's samples among ``count``: a fresh permutation every epoch.

    A function of the arguments alone, so that a resumed run sees the data that an uninterrupted one would.
    """
    first = step * batch_size
    parts: list[Tensor] = []
    found = 0
    while found < batch_size:
        epoch, offset = divmod(first + found, count)
        part = _permutation(count, seed, epoch)[offset : offset + batch_size - found]
        parts.append(part)
        found += len(part)
    return torch.cat(parts)


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
