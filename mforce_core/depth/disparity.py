"""Disparity, the inverse of depth: linear across the picture of a flat surface, and 0 infinitely far away."""

from __future__ import annotations

import torch
from torch import Tensor


def disparity_of(depth: Tensor, known: Tensor) -> Tensor:
    """1 / depth, and 0 where the depth is not known.

    Args:
        depth: of any shape; what it holds where it is not known does not matter, not even to gradients.
        known: bool, of the same shape.
    """
    return torch.where(known, 1.0 / torch.where(known, depth, 1.0), 0.0)
