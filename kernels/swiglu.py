"""The gate of the blocks' MLP (SwiGLU, Shazeer, arXiv 2002.05202)."""

from torch import Tensor
from torch.nn.functional import silu


def swiglu(x: Tensor) -> Tensor:
    """``silu(a) * b`` for the halves a, b of the last axis: (..., 2M) -> (..., M)."""
    a, b = x.chunk(2, dim=-1)
    return silu(a) * b
