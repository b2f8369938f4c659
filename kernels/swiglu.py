"""The gate of the blocks' MLP (SwiGLU, Shazeer, arXiv 2002.05202)."""

import torch
from torch import Tensor
from torch.nn.functional import silu

from .choice import dispatch
from .drawing import Draw
from .registry import Call, Op, register_op
from .tracing import recorded


def swiglu(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``silu(a) * b`` for the halves a, b of the last axis.

    Args:
        x: (B, L, 2 M), rows may be strided.
        out: destination (B, L, M), rows may be strided; only where autograd does not record.

    Returns:
        (B, L, M), ``out`` where it is given.

    Raises:
        BackEndUnavailable: a back end was asked for by name and cannot run.
    """
    tensors = (x,) if out is None else (x, out)
    return dispatch(SWIGLU, tensors, (x, None, out), x.shape[2] // 2, (x.shape[0], x.shape[1]))


def concat_swiglu(left: Tensor, x: Tensor) -> Tensor:
    """``[left | swiglu(x)]`` for left (B, L, C) and x (B, L, 2 M), as a new (B, L, C + M).

    Raises:
        BackEndUnavailable: a back end was asked for by name and cannot run.
    """
    return dispatch(SWIGLU, (x, left), (x, left, None), x.shape[2] // 2, (x.shape[0], x.shape[1]))


def _reference(x: Tensor, left: Tensor | None, out: Tensor | None) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    if out is not None:
        return torch.mul(silu(a), b, out=out)
    if left is None:
        return silu(a) * b
    if recorded(x, left):
        return torch.cat((left, silu(a) * b), dim=-1)
    width = left.shape[2]
    joined = x.new_empty(*x.shape[:2], width + a.shape[2])
    joined[..., :width] = left
    torch.mul(silu(a), b, out=joined[..., width:])
    return joined


def _draw(call: Call) -> tuple[Tensor, None, None]:
    return Draw(call)(*call.sizes, 2 * call.width), None, None


SWIGLU = register_op(
    Op(
        "swiglu",
        {"x": "B L 2M", "left": "B L C", "return": "B L M or, right of left, B L C+M"},
        "channels",
        ("batch", "tokens"),
        _draw,
    ),
    _reference,
)
