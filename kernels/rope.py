"""RMSNorm on queries and keys, then rotary position embedding (Su et al., arXiv 2104.09864) over several axes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .choice import dispatch
from .drawing import Draw
from .registry import Call, Op, register_op
from .tracing import recorded

RMS_NORM_EPS = 1e-6

#: Tokens that the CPU takes through all steps at a time, so that what lies between two steps stays in its caches.
_CPU_TOKENS = 512


class PackedHeads(NamedTuple):
    """What one stream's Linear wrote, (B, L, 3, H, D), a strided view is fine, and the scales of its norms, (D,)."""

    qkv: Tensor
    query_scale: Tensor
    key_scale: Tensor


def rope_table(positions: Tensor, axes_dim: Sequence[int], theta: float) -> Tensor:
    """Cosines and sines of every token's rotation angles.

    The angle of pair k on an axis of ``dim`` features is ``position * theta ** (-2k / dim)``; axes are concatenated.

    Args:
        positions: (L, axes), the token's coordinate on each axis.
        axes_dim: features of a head that each axis rotates; they sum to the head size D.
        theta: base of the geometric progression of frequencies.

    Returns:
        (2, L, D / 2) float32: cosines, sines.
    """
    # Apple's GPUs have no float64.
    dtype = torch.float32 if positions.device.type == "mps" else torch.float64
    angles = []
    for axis, dim in enumerate(axes_dim):
        exponent = torch.arange(0, dim, 2, dtype=dtype, device=positions.device) / dim
        angles.append(positions[:, axis, None].to(dtype) * theta**-exponent)
    angle = torch.cat(angles, dim=-1)
    return torch.stack((angle.cos(), angle.sin())).to(torch.float32)


def qk_norm_rope(
    streams: Sequence[PackedHeads], table: Tensor, *, inplace: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of all streams, joined in their order, from what their packed Linears wrote.

    The norm is taken in float32 and cast back before its scale, the rotation in float32: the order decides what
    bfloat16 results look like.

    Args:
        streams: of the joint sequence, their lengths sum to L.
        table: (2, L, D / 2) from :func:`rope_table`; rotates interleaved pairs (2k, 2k + 1).
        inplace: a single stream's q and k are written over what they are made of; only where autograd does not record.

    Returns:
        q, k, v, each (B, L, H, D), possibly strided views of one buffer.

    Raises:
        ValueError: the table is not one of these tokens and heads.
        BackEndUnavailable: a back end was asked for by name and cannot run.
    """
    qkv = streams[0].qkv
    _check(streams, table)
    scales = [scale.to(qkv.dtype) for stream in streams for scale in (stream.query_scale, stream.key_scale)]
    tensors = (*(stream.qkv for stream in streams), *scales)
    sizes = (qkv.shape[0], table.shape[1], len(streams), qkv.shape[3])
    return dispatch(QK_NORM_ROPE, tensors, (streams, table, inplace), qkv.shape[4], sizes)


def _check(streams: Sequence[PackedHeads], table: Tensor) -> None:
    """Kernels would read beyond a table that is too small."""
    qkv, length = streams[0].qkv, sum(stream.qkv.shape[1] for stream in streams)
    if table.shape != (2, length, qkv.shape[4] // 2) or qkv.shape[4] % 2:
        raise ValueError(f"the table {tuple(table.shape)} is not one of {length} tokens and {qkv.shape[4]} features")
    if table.dtype != torch.float32 or table.device != qkv.device:
        raise ValueError(f"the table must be float32 on {qkv.device}, got {table.dtype} on {table.device}")


def joint_buffer(streams: Sequence[PackedHeads], inplace: bool) -> Tensor:
    """Where q, k and v of all streams go, (B, L, 3, H, D): a new buffer, or a single stream's own."""
    qkv = streams[0].qkv
    if inplace and len(streams) == 1:
        return qkv
    length = sum(stream.qkv.shape[1] for stream in streams)
    return qkv.new_empty(qkv.shape[0], length, *qkv.shape[2:])


def _reference(streams: Sequence[PackedHeads], table: Tensor, inplace: bool) -> tuple[Tensor, Tensor, Tensor]:
    if recorded(*(tensor for stream in streams for tensor in stream)):
        return _functional(streams, table)
    qkv, start = joint_buffer(streams, inplace), 0
    for stream in streams:
        part = slice(start, start + stream.qkv.shape[1])
        _write(stream, table[:, part], qkv[:, part])
        start = part.stop
    q, k, v = qkv.unbind(2)
    return q, k, v


def _rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + RMS_NORM_EPS)
    return wide.to(x.dtype) * scale.to(x.dtype)


def _rotate(x: Tensor, table: Tensor) -> Tensor:
    cos, sin = table[:, :, None]
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2).to(x.dtype)


def _functional(streams: Sequence[PackedHeads], table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    parts = []
    for (qkv, *scales), rows in zip(
        streams, table.split([stream.qkv.shape[1] for stream in streams], dim=1), strict=True
    ):
        *queries_keys, v = qkv.unbind(2)
        rotated = (_rotate(_rms_norm(x, scale), rows) for x, scale in zip(queries_keys, scales, strict=True))
        parts.append((*rotated, v))
    q, k, v = parts[0] if len(parts) == 1 else (torch.cat(kind, dim=1) for kind in zip(*parts, strict=True))
    return q, k, v


def _write(stream: PackedHeads, table: Tensor, out: Tensor) -> None:
    """Fill ``out``, (B, L, 3, H, D), which may be the stream's qkv itself, without autograd."""
    qkv, *scales = stream
    if qkv.device.type != "cpu":
        for part, tensor in enumerate(_functional([stream], table)):
            out[:, :, part].copy_(tensor)
        return
    scale = torch.stack([scale.to(qkv.dtype) for scale in scales])[:, None]  # (2, 1, D) against (..., 2, H, D)
    turn = torch.complex(*table)[:, None, None]  # (L, 1, 1, D / 2)
    for start in range(0, qkv.shape[1], _CPU_TOKENS):
        rows = slice(start, start + _CPU_TOKENS)
        wide = qkv[:, rows, :2].to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        wide *= norm.square_().div_(qkv.shape[4]).add_(RMS_NORM_EPS).rsqrt_()
        wide = wide.to(qkv.dtype).mul_(scale).float()
        torch.view_as_complex(wide.unflatten(-1, (-1, 2))).mul_(turn[rows])
        out[:, rows, :2].copy_(wide)
    if out.data_ptr() != qkv.data_ptr():
        out[:, :, 2].copy_(qkv[:, :, 2])


def _draw(call: Call) -> tuple[list[PackedHeads], Tensor, bool]:
    batch, length, streams, heads = call.sizes
    draw = Draw(call)
    lengths = [length // streams] * (streams - 1)
    packed = [
        PackedHeads(draw(batch, part, 3, heads, call.width), draw(call.width), draw(call.width))
        for part in (*lengths, length - sum(lengths))
    ]
    positions = torch.arange(length, device=call.device)[:, None]
    return packed, rope_table(positions, (call.width,), 2000.0), False


_HEADS = "B L H D"

QK_NORM_ROPE = register_op(
    Op(
        "qk_norm_rope",
        {"qkv": "B L 3 H D", "query_scale": "D", "key_scale": "D", "table": "2 L D/2", "return": _HEADS},
        "features of a head",
        ("batch", "tokens", "streams", "heads"),
        _draw,
    ),
    _reference,
)
