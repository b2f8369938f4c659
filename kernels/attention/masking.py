"""Samples without a single key: softmax has no answer for them, their attention is zero."""

import torch
from torch import Tensor


def open_empty_rows(key_mask: Tensor) -> tuple[Tensor, Tensor]:
    """A mask (B, L) in which every sample has a key, and (B, 1, 1) which of them had one before."""
    some = key_mask.any(dim=-1, keepdim=True)
    return key_mask | ~some, some[:, :, None]


def close_empty_rows(attended: Tensor, some: Tensor) -> Tensor:
    """Zeros, in value and in gradient, where there was no key; ``attended`` is (B, L, C)."""
    return torch.where(some, attended, 0)
