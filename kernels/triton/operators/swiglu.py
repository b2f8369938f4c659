"""SwiGLU on Triton."""

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import count
from ...tracing import needs_gradient
from ..swiglu import backward, forward
from .eager import Formula, contiguous_rows, differentiable, unrecorded, unwatched


def run_swiglu(x: Tensor, left: Tensor | None, out: Tensor | None) -> Tensor:
    tensors = (x,) if left is None else (x, left)
    if not unwatched(*tensors):
        found = swiglu(x, left)
        return found if out is None else out.copy_(found)
    if needs_gradient(*tensors):
        return differentiable(_SWIGLU, x, left)
    return _swiglu(x, left) if out is None else _into(x, out)


def _into(x: Tensor, out: Tensor) -> Tensor:
    forward(x, out)
    count("swiglu", "triton")
    return out


def _swiglu(x: Tensor, left: Tensor | None) -> Tensor:
    offset = 0 if left is None else left.shape[2]
    out = x.new_empty(*x.shape[:2], offset + x.shape[2] // 2)
    if left is not None:
        out[..., :offset].copy_(left)
    _into(x, out[..., offset:])
    return out


@custom_op("mforce::swiglu", mutates_args=())
def swiglu(x: Tensor, left: Tensor | None) -> Tensor:
    """``silu(a) * b`` for the halves of x, (B, L, 2 M), to the right of ``left``, (B, L, C), where there is one."""
    return _swiglu(x, left)


@swiglu.register_fake
def _(x: Tensor, left: Tensor | None) -> Tensor:
    offset = 0 if left is None else left.shape[2]
    return x.new_empty(*x.shape[:2], offset + x.shape[2] // 2)


def _swiglu_backward(grad: Tensor, x: Tensor) -> Tensor:
    grad_x = backward(grad, x)
    count("swiglu_backward", "triton")
    return grad_x


@custom_op("mforce::swiglu_backward", mutates_args=())
def swiglu_backward(grad: Tensor, x: Tensor) -> Tensor:
    return _swiglu_backward(grad, x)


@swiglu_backward.register_fake
def _(grad: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, left = inputs
    ctx.offset = None if left is None else left.shape[2]
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: Tensor) -> tuple:
    (x,) = ctx.saved_tensors
    grad = contiguous_rows(grad)
    run = _swiglu_backward if unrecorded(grad, x) else swiglu_backward
    grad_x = run(grad[..., ctx.offset or 0 :], x)
    return grad_x, None if ctx.offset is None else grad[..., : ctx.offset]


swiglu.register_autograd(_backward, setup_context=_setup)

_SWIGLU = Formula(_swiglu, _setup, _backward)
