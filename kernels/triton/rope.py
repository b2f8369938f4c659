"""RMSNorm and rotation of q and k from a packed qkv into any buffers, several heads of a token per program.

A tile holds (heads, pairs) even and odd features apart, so that the rotation is plain arithmetic and every load and
store is of whole rows.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import block_size, launch, rows_per_program, warps_for

#: Features of a tile, heads times head size, at most.
_TILE = 2048

#: Programs of the backward pass for each multiprocessor: as many as its registers hold, so that one wave does the work.
PROGRAMS_PER_PROCESSOR = 4


@triton.jit
def _split_pairs(x, rows: tl.constexpr, pairs: tl.constexpr):
    """(rows, 2 pairs) -> features 2k and 2k + 1, each (rows, pairs), float32."""
    return tl.split(tl.reshape(x.to(tl.float32), (rows, pairs, 2)))


@triton.jit
def _join_pairs(even, odd, rows: tl.constexpr, pairs: tl.constexpr):
    return tl.reshape(tl.join(even, odd), (rows, 2 * pairs))


@triton.jit
def _angles(table, table_plane, row, table_row, half: tl.constexpr, pairs: tl.constexpr):
    """Cosines and sines of a token, each (1, pairs)."""
    pair = tl.arange(0, pairs)
    start = table + row * table_row + pair
    cos = tl.load(start, mask=pair < half, other=0.0)
    sin = tl.load(start + table_plane, mask=pair < half, other=0.0)
    return cos[None, :], sin[None, :]


@triton.jit
def _scales(scale, half: tl.constexpr, pairs: tl.constexpr):
    """The learned scale of even and odd features, each (1, pairs)."""
    feature = tl.arange(0, 2 * pairs)
    values = tl.load(scale + feature, mask=feature < 2 * half, other=0.0)
    return _split_pairs(values[None, :], 1, pairs)


@triton.jit
def _norm_rotate(
    source,
    target,
    offsets,
    target_offsets,
    inside,
    scale,
    cos,
    sin,
    eps,
    half: tl.constexpr,
    heads: tl.constexpr,
    pairs: tl.constexpr,
):
    """One tile of q or k from ``source`` to ``target``."""
    kind = source.dtype.element_ty
    even, odd = _split_pairs(tl.load(source + offsets, mask=inside, other=0.0), heads, pairs)
    reciprocal = 1.0 / tl.sqrt(tl.sum(even * even + odd * odd, axis=1) / (2 * half) + eps)
    scale_even, scale_odd = _scales(scale, half, pairs)
    # Cast back before the scale and after it, as two operations in the tensor's dtype would round.
    even = (even * reciprocal[:, None]).to(kind).to(tl.float32)
    odd = (odd * reciprocal[:, None]).to(kind).to(tl.float32)
    even = (even * scale_even.to(kind).to(tl.float32)).to(kind).to(tl.float32)
    odd = (odd * scale_odd.to(kind).to(tl.float32)).to(kind).to(tl.float32)
    rotated = _join_pairs(even * cos - odd * sin, odd * cos + even * sin, heads, pairs)
    tl.store(target + target_offsets, rotated.to(target.dtype.element_ty), mask=inside)


@triton.jit
def qk_norm_rope_forward(
    qkv,
    q,
    k,
    v,
    query_scale,
    key_scale,
    table,
    head_count,
    eps,
    qkv_batch,
    qkv_row,
    qkv_part,
    qkv_head,
    q_batch,
    q_row,
    q_head,
    k_batch,
    k_row,
    k_head,
    v_batch,
    v_row,
    v_head,
    table_plane,
    table_row,
    copy_v: tl.constexpr,
    half: tl.constexpr,
    heads: tl.constexpr,
    pairs: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    head = (tl.program_id(1) * heads + tl.arange(0, heads))[:, None]
    feature = tl.arange(0, 2 * pairs)[None, :]
    inside = (head < head_count) & (feature < 2 * half)
    cos, sin = _angles(table, table_plane, row, table_row, half, pairs)
    source = qkv + batch * qkv_batch + row * qkv_row
    offsets = head * qkv_head + feature
    _norm_rotate(
        source,
        q + batch * q_batch + row * q_row,
        offsets,
        head * q_head + feature,
        inside,
        query_scale,
        cos,
        sin,
        eps,
        half,
        heads,
        pairs,
    )
    _norm_rotate(
        source + qkv_part,
        k + batch * k_batch + row * k_row,
        offsets,
        head * k_head + feature,
        inside,
        key_scale,
        cos,
        sin,
        eps,
        half,
        heads,
        pairs,
    )
    if copy_v:
        values = tl.load(source + 2 * qkv_part + offsets, mask=inside, other=0.0)
        tl.store(v + batch * v_batch + row * v_row + head * v_head + feature, values, mask=inside)


def _tile(head_count: int, head_dim: int) -> tuple[int, int]:
    """Heads and pairs of a program's tile, powers of two."""
    features = block_size(head_dim)
    return min(block_size(head_count), max(_TILE // features, 1)), features // 2


def forward(
    qkv: Tensor, query_scale: Tensor, key_scale: Tensor, table: Tensor, q: Tensor, k: Tensor, v: Tensor, eps: float
) -> None:
    """Write normalized, rotated q and k, and v as it is.

    Args:
        qkv: (B, L, 3, H, D) with contiguous heads.
        query_scale, key_scale: (D,).
        table: (2, L, D / 2) float32.
        q, k, v: destinations (B, L, H, D) with contiguous heads; they may be qkv's own parts, and then v is left alone.
    """
    batch, length, _, head_count, head_dim = qkv.shape
    heads, pairs = _tile(head_count, head_dim)
    launch(
        qk_norm_rope_forward,
        (length, triton.cdiv(head_count, heads), batch),
        qkv,
        qkv,
        q,
        k,
        v,
        query_scale,
        key_scale,
        table,
        head_count,
        eps,
        *qkv.stride()[:4],
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        *table.stride()[:2],
        copy_v=v.data_ptr() != qkv[:, :, 2].data_ptr(),
        half=head_dim // 2,
        heads=heads,
        pairs=pairs,
        num_warps=warps_for(2 * heads * pairs),
    )


@triton.jit
def _norm_rotate_backward(
    source,
    grad,
    target,
    offsets,
    grad_offsets,
    target_offsets,
    inside,
    scale,
    cos,
    sin,
    eps,
    half: tl.constexpr,
    heads: tl.constexpr,
    pairs: tl.constexpr,
):
    """One tile of the gradient; returns the tile's sums for the scale's gradient, even and odd, (pairs,)."""
    even, odd = _split_pairs(tl.load(source + offsets, mask=inside, other=0.0), heads, pairs)
    slope_even, slope_odd = _split_pairs(tl.load(grad + grad_offsets, mask=inside, other=0.0), heads, pairs)
    reciprocal = 1.0 / tl.sqrt(tl.sum(even * even + odd * odd, axis=1) / (2 * half) + eps)[:, None]
    even = even * reciprocal
    odd = odd * reciprocal
    scale_even, scale_odd = _scales(scale, half, pairs)
    # The rotation's transpose turns back.
    back_even = slope_even * cos + slope_odd * sin
    back_odd = slope_odd * cos - slope_even * sin
    sum_even = tl.sum(back_even * even, axis=0)
    sum_odd = tl.sum(back_odd * odd, axis=0)
    back_even = back_even * scale_even
    back_odd = back_odd * scale_odd
    along = (tl.sum(back_even * even + back_odd * odd, axis=1) / (2 * half))[:, None]
    out = _join_pairs(reciprocal * (back_even - even * along), reciprocal * (back_odd - odd * along), heads, pairs)
    tl.store(target + target_offsets, out.to(target.dtype.element_ty), mask=inside)
    return sum_even, sum_odd


@triton.jit(do_not_specialize=["length", "rows"])
def qk_norm_rope_backward(
    qkv,
    grad_q,
    grad_k,
    grad_v,
    query_scale,
    key_scale,
    table,
    grad_qkv,
    partial,
    length,
    rows,
    head_count,
    eps,
    qkv_batch,
    qkv_row,
    qkv_part,
    qkv_head,
    q_batch,
    q_row,
    q_head,
    k_batch,
    k_row,
    k_head,
    v_batch,
    v_row,
    v_head,
    out_batch,
    out_row,
    out_part,
    out_head,
    table_plane,
    table_row,
    half: tl.constexpr,
    heads: tl.constexpr,
    pairs: tl.constexpr,
):
    chunk = tl.program_id(0)
    batch = tl.program_id(2).to(tl.int64)
    head = (tl.program_id(1) * heads + tl.arange(0, heads))[:, None]
    feature = tl.arange(0, 2 * pairs)[None, :]
    inside = (head < head_count) & (feature < 2 * half)
    query_even = tl.zeros((pairs,), tl.float32)
    query_odd = tl.zeros((pairs,), tl.float32)
    key_even = tl.zeros((pairs,), tl.float32)
    key_odd = tl.zeros((pairs,), tl.float32)
    row = chunk.to(tl.int64) * rows
    end = tl.minimum(row + rows, length)
    while row < end:  # the interpreter of some releases takes no range between tensors
        cos, sin = _angles(table, table_plane, row, table_row, half, pairs)
        source = qkv + batch * qkv_batch + row * qkv_row
        target = grad_qkv + batch * out_batch + row * out_row
        offsets = head * qkv_head + feature
        target_offsets = head * out_head + feature
        even, odd = _norm_rotate_backward(
            source,
            grad_q + batch * q_batch + row * q_row,
            target,
            offsets,
            head * q_head + feature,
            target_offsets,
            inside,
            query_scale,
            cos,
            sin,
            eps,
            half,
            heads,
            pairs,
        )
        query_even += even
        query_odd += odd
        even, odd = _norm_rotate_backward(
            source + qkv_part,
            grad_k + batch * k_batch + row * k_row,
            target + out_part,
            offsets,
            head * k_head + feature,
            target_offsets,
            inside,
            key_scale,
            cos,
            sin,
            eps,
            half,
            heads,
            pairs,
        )
        key_even += even
        key_odd += odd
        values = tl.load(grad_v + batch * v_batch + row * v_row + head * v_head + feature, mask=inside, other=0.0)
        tl.store(target + 2 * out_part + target_offsets, values, mask=inside)
        row += 1
    slot = (batch * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + chunk
    pair = tl.arange(0, pairs)
    start_of_sums = partial + slot * 4 * half + pair
    tl.store(start_of_sums, query_even, mask=pair < half)
    tl.store(start_of_sums + half, query_odd, mask=pair < half)
    tl.store(start_of_sums + 2 * half, key_even, mask=pair < half)
    tl.store(start_of_sums + 3 * half, key_odd, mask=pair < half)


def backward(
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    qkv: Tensor,
    query_scale: Tensor,
    key_scale: Tensor,
    table: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of qkv, (B, L, 3, H, D), and of the two scales, the latter summed by program, then over programs."""
    batch, length, _, head_count, head_dim = qkv.shape
    heads, pairs = _tile(head_count, head_dim)
    groups = triton.cdiv(head_count, heads)
    rows = rows_per_program(length * batch * groups, qkv.device, PROGRAMS_PER_PROCESSOR)
    chunks = triton.cdiv(length, rows)
    grad_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    half = head_dim // 2
    partial = torch.empty(batch * groups * chunks, 2, 2, half, dtype=torch.float32, device=qkv.device)
    launch(
        qk_norm_rope_backward,
        (chunks, groups, batch),
        qkv,
        qkv,
        grad_q,
        grad_k,
        grad_v,
        query_scale,
        key_scale,
        table,
        grad_qkv,
        partial,
        length,
        rows,
        head_count,
        eps,
        *qkv.stride()[:4],
        *grad_q.stride()[:3],
        *grad_k.stride()[:3],
        *grad_v.stride()[:3],
        *grad_qkv.stride()[:4],
        *table.stride()[:2],
        half=half,
        heads=heads,
        pairs=pairs,
        num_warps=warps_for(2 * heads * pairs),
    )
    query, key = (sums.sum(0).T.flatten() for sums in partial.unbind(1))  # even and odd interleaved again
    return grad_qkv, query.to(query_scale.dtype), key.to(key_scale.dtype)
