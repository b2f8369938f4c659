"""RMSNorm and rotation of queries and keys on Triton."""

from typing import Any, List, Sequence  # noqa: UP035  what custom_op knows before PyTorch 2.7

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import count
from ...rope import RMS_NORM_EPS, PackedHeads, joint_buffer
from ...tracing import needs_gradient
from ..rope import backward, forward
from .eager import Formula, contiguous_rows, differentiable, unrecorded, unwatched


def run_qk_norm_rope(streams: Sequence[PackedHeads], table: Tensor, inplace: bool) -> tuple[Tensor, Tensor, Tensor]:
    qkvs = [stream.qkv for stream in streams]
    query_scales = [stream.query_scale.to(stream.qkv.dtype) for stream in streams]
    key_scales = [stream.key_scale.to(stream.qkv.dtype) for stream in streams]
    tensors = (*qkvs, *query_scales, *key_scales)
    if not unwatched(*tensors):
        return qk_norm_rope(qkvs, query_scales, key_scales, table)
    if needs_gradient(*tensors):
        return differentiable(_QK_NORM_ROPE, qkvs, query_scales, key_scales, table)
    q, k, v = joint_buffer(streams, inplace).unbind(2)
    _forward(qkvs, query_scales, key_scales, table, q, k, v)
    return q, k, v


def _forward(
    qkvs: Sequence[Tensor],
    query_scales: Sequence[Tensor],
    key_scales: Sequence[Tensor],
    table: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
) -> None:
    start = 0
    for qkv, query_scale, key_scale in zip(qkvs, query_scales, key_scales, strict=True):
        part = slice(start, start + qkv.shape[1])
        forward(qkv, query_scale, key_scale, table[:, part], q[:, part], k[:, part], v[:, part], RMS_NORM_EPS)
        start = part.stop
    count("qk_norm_rope", "triton")


def _qk_norm_rope(
    qkvs: Sequence[Tensor], query_scales: Sequence[Tensor], key_scales: Sequence[Tensor], table: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = _empty(qkvs)
    _forward(qkvs, query_scales, key_scales, table, q, k, v)
    return q, k, v


@custom_op("mforce::qk_norm_rope", mutates_args=())
def qk_norm_rope(
    qkvs: Sequence[Tensor], query_scales: Sequence[Tensor], key_scales: Sequence[Tensor], table: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _qk_norm_rope(qkvs, query_scales, key_scales, table)


@qk_norm_rope.register_fake
def _(
    qkvs: Sequence[Tensor], query_scales: Sequence[Tensor], key_scales: Sequence[Tensor], table: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(qkvs)


def _empty(qkvs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, _, heads, features = qkvs[0].shape
    length = sum(qkv.shape[1] for qkv in qkvs)
    q, k, v = (qkvs[0].new_empty(batch, length, heads, features) for _ in range(3))
    return q, k, v


def _qk_norm_rope_backward(
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    qkvs: Sequence[Tensor],
    query_scales: Sequence[Tensor],
    key_scales: Sequence[Tensor],
    table: Tensor,
) -> list[Tensor]:
    grads, start = [], 0
    for qkv, query_scale, key_scale in zip(qkvs, query_scales, key_scales, strict=True):
        part = slice(start, start + qkv.shape[1])
        dq, dk, dv = (grad[:, part] for grad in (grad_q, grad_k, grad_v))
        grads.append(backward(dq, dk, dv, qkv, query_scale, key_scale, table[:, part], RMS_NORM_EPS))
        start = part.stop
    count("qk_norm_rope_backward", "triton")
    return [grad for kind in zip(*grads, strict=True) for grad in kind]


@custom_op("mforce::qk_norm_rope_backward", mutates_args=())
def qk_norm_rope_backward(
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    qkvs: Sequence[Tensor],
    query_scales: Sequence[Tensor],
    key_scales: Sequence[Tensor],
    table: Tensor,
) -> List[Tensor]:  # noqa: UP006
    """Gradients of every qkv, then of every query scale, then of every key scale."""
    return _qk_norm_rope_backward(grad_q, grad_k, grad_v, qkvs, query_scales, key_scales, table)


@qk_norm_rope_backward.register_fake
def _(
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    qkvs: Sequence[Tensor],
    query_scales: Sequence[Tensor],
    key_scales: Sequence[Tensor],
    table: Tensor,
) -> list[Tensor]:
    return [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor in (*qkvs, *query_scales, *key_scales)
    ]


def _setup(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    qkvs, query_scales, key_scales, table = inputs
    ctx.save_for_backward(table, *qkvs, *query_scales, *key_scales)


def _backward(ctx: Any, *grads: Tensor) -> tuple:
    table, *saved = ctx.saved_tensors
    count = len(saved) // 3
    qkvs, query_scales, key_scales = saved[:count], saved[count : 2 * count], saved[2 * count :]
    grad_q, grad_k, grad_v = (contiguous_rows(grad) for grad in grads)
    run = _qk_norm_rope_backward if unrecorded(*grads, *qkvs) else qk_norm_rope_backward
    out = run(grad_q, grad_k, grad_v, qkvs, query_scales, key_scales, table)
    return out[:count], out[count : 2 * count], out[2 * count :], None


qk_norm_rope.register_autograd(_backward, setup_context=_setup)

_QK_NORM_ROPE = Formula(_qk_norm_rope, _setup, _backward)
