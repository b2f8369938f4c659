"""Attention on Triton."""

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import count
from ...tracing import needs_gradient
from ..attention import forward
from ..attention_backward import backward
from .eager import Formula, contiguous_rows, differentiable, unrecorded, unwatched


def run_attention(q: Tensor, k: Tensor, v: Tensor, out: Tensor | None) -> Tensor:
    q, k, v = (contiguous_rows(x) for x in (q, k, v))
    if unwatched(q, k, v):
        if needs_gradient(q, k, v):
            return differentiable(_ATTENTION, q, k, v)[0]
        out = _empty(q) if out is None else out
        _forward(q, k, v, out)
        return out
    if out is None:
        return flash_attention(q, k, v)[0]
    flash_attention_into(q, k, v, out)
    return out


def _empty(q: Tensor) -> Tensor:
    return q.new_empty(*q.shape[:2], q.shape[2] * q.shape[3])


def _forward(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Tensor:
    logsumexp = forward(q, k, v, out)
    count("attention", "triton")
    return logsumexp


def _flash_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    out = _empty(q)
    return out, _forward(q, k, v, out)


@custom_op("mforce::attention", mutates_args=())
def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(B, Lq, H * D) and the row sums that the backward pass needs, (B, H, Lq) float32."""
    return _flash_attention(q, k, v)


@flash_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    batch, length, heads, features = q.shape
    return q.new_empty(batch, length, heads * features), q.new_empty(batch, heads, length, dtype=torch.float32)


@custom_op("mforce::attention_into", mutates_args=("out",))
def flash_attention_into(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
    """The same without gradients, into (B, Lq, H * D)."""
    _forward(q, k, v, out)


@flash_attention_into.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
    return None


def _flash_attention_backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grads = backward(grad_out, q, k, v, out, logsumexp)
    count("attention_backward", "triton")
    return grads


@custom_op("mforce::attention_backward", mutates_args=())
def flash_attention_backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _flash_attention_backward(grad_out, q, k, v, out, logsumexp)


@flash_attention_backward.register_fake
def _(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grad_q, grad_k, grad_v = (x.new_empty(x.shape) for x in (q, k, v))
    return grad_q, grad_k, grad_v


def _setup(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    out, logsumexp = output
    ctx.mark_non_differentiable(logsumexp)
    ctx.save_for_backward(*inputs, out, logsumexp)


def _backward(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grad_out = contiguous_rows(grad_out)
    saved = ctx.saved_tensors
    run = _flash_attention_backward if unrecorded(grad_out, *saved) else flash_attention_backward
    return run(grad_out, *saved)


flash_attention.register_autograd(_backward, setup_context=_setup)

_ATTENTION = Formula(_flash_attention, _setup, _backward)
