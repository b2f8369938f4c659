"""Reusing what the blocks after the first one add, between steps in which that hardly changes."""

from collections.abc import Hashable
from typing import NamedTuple

from torch import Tensor


class _Kept(NamedTuple):
    """What the first block added, and what all others added after it."""

    first: Tensor
    rest: Tensor


class BlockCache:
    """The residual of all blocks but the first, from the last step in which it was computed.

    It is added again while what the first block adds has changed by no more than ``threshold``, as the first-block
    caches that people use for FLUX do. A step then costs one block and the depth decoder; its result is near the
    model's, not the same. The pictures of a batch decide together, so that a picture depends on its neighbors.

    Args:
        threshold: mean absolute change of the first block's residual relative to its mean size; above 0.

    Attributes:
        asked, reused: calls of the model so far, and those in which the residual was reused.
    """

    def __init__(self, threshold: float) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"the threshold of a block cache must lie between 0 and 1, got {threshold}")
        self.threshold, self.asked, self.reused = threshold, 0, 0
        self._kept: dict[Hashable, _Kept] = {}

    def rest(self, first: Tensor, key: Hashable) -> Tensor | None:
        """What the other blocks added when the first one's residual was nearly ``first``; None where it has changed.

        Args:
            first: (B, L, C).
            key: of the conditionings that the call is for; others are kept apart, as are other shapes.
        """
        self.asked += 1
        kept = self._kept.get((key, first.shape))
        if kept is None or (first - kept.first).abs().mean() > self.threshold * kept.first.abs().mean():
            return None
        self.reused += 1
        return kept.rest

    def keep(self, first: Tensor, rest: Tensor, key: Hashable) -> None:
        """Note both residuals of a call in which all blocks ran."""
        self._kept[key, first.shape] = _Kept(first, rest)
