"""The gate of the blocks' MLP (SwiGLU, Shazeer, arXiv 2002.05202)."""

import torch
from torch import Tensor
from torch.nn.functional import silu

from .dispatch import on_triton, recorded


def swiglu(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``silu(a) * b`` for the halves a, b of the last axis.

    Args:
        x: (B, L, 2 M), rows may be strided.
        out: destination (B, L, M), rows may be strided; only where autograd does not record.

    Returns:
        (B, L, M), ``out`` where it is given.
    """
    if not on_triton("swiglu", x.shape[2] // 2, x, x if out is None else out):
        a, b = x.chunk(2, dim=-1)
        return silu(a) * b if out is None else torch.mul(silu(a), b, out=out)
    if recorded(x):
        from . import swiglu_ops

        return swiglu_ops.swiglu(x, None)
    from .triton.swiglu import forward

    if out is None:
        out = x.new_empty(*x.shape[:2], x.shape[2] // 2)
    forward(x, out)
    return out


def concat_swiglu(left: Tensor, x: Tensor) -> Tensor:
    """``[left | swiglu(x)]`` for left (B, L, C) and x (B, L, 2 M), as a new (B, L, C + M)."""
    if on_triton("swiglu", x.shape[2] // 2, x, left):
        from . import swiglu_ops

        return swiglu_ops.swiglu(x, left)
    return torch.cat((left, swiglu(x)), dim=-1)
