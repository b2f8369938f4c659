"""SwiGLU on Triton."""

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import count
from ...tracing import recorded
from ..swiglu import backward, forward


def run_swiglu(x: Tensor, left: Tensor | None, out: Tensor | None) -> Tensor:
    if recorded(x) or left is not None:
        return swiglu(x, left)
    return _into(x, x.new_empty(*x.shape[:2], x.shape[2] // 2) if out is None else out)


def _into(x: Tensor, out: Tensor) -> Tensor:
    forward(x, out)
    count("swiglu", "triton")
    return out


@custom_op("mforce::swiglu", mutates_args=())
def swiglu(x: Tensor, left: Tensor | None) -> Tensor:
    """``silu(a) * b`` for the halves of x, (B, L, 2 M), to the right of ``left``, (B, L, C), where there is one."""
    offset = 0 if left is None else left.shape[2]
    out = x.new_empty(*x.shape[:2], offset + x.shape[2] // 2)
    if left is not None:
        out[..., :offset].copy_(left)
    _into(x, out[..., offset:])
    return out


@swiglu.register_fake
def _(x: Tensor, left: Tensor | None) -> Tensor:
    offset = 0 if left is None else left.shape[2]
    return x.new_empty(*x.shape[:2], offset + x.shape[2] // 2)


@custom_op("mforce::swiglu_backward", mutates_args=())
def swiglu_backward(grad: Tensor, x: Tensor) -> Tensor:
    grad_x = backward(grad, x)
    count("swiglu_backward", "triton")
    return grad_x


@swiglu_backward.register_fake
def _(grad: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, left = inputs
    ctx.offset = None if left is None else left.shape[2]
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: Tensor) -> tuple:
    (x,) = ctx.saved_tensors
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    grad_x = swiglu_backward(grad[..., ctx.offset or 0 :], x)
    return grad_x, None if ctx.offset is None else grad[..., : ctx.offset]


swiglu.register_autograd(_backward, setup_context=_setup)
