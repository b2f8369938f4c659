"""Flash attention, backward: the weights are made again from the row sums that the forward pass kept.

With P the weights, dP = dO V^T and delta = rowsum(dO * O): dS = P * (dP - delta), dV = P^T dO, dK = scale * dS^T Q,
dQ = scale * dS K. One kernel owns blocks of keys and walks over the queries, another owns blocks of queries and walks
over the keys, so nothing is added to from two places and the result is the same every time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .attention import LOG2_E, Tile, TileTable, dot, dot_add, padded_head, rows_of, store_rows
from .launching import launch

#: By padded head size, ``keys`` owned and ``queries`` walked over; for dQ the two change places. The two accumulators
#: of (keys, head) take twice the forward pass's registers.
TILES = TileTable(
    hopper={64: Tile(64, 128, 8, 2), 128: Tile(64, 128, 8, 2), 256: Tile(32, 64, 8, 1)},
    ampere={64: Tile(64, 64, 4, 2), 128: Tile(32, 64, 4, 2), 256: Tile(32, 32, 4, 1)},
    amd={64: Tile(32, 64, 4, 1), 128: Tile(32, 64, 4, 1), 256: Tile(16, 32, 4, 1)},
    scalar={128: Tile(16, 32, 4, 1), 256: Tile(16, 16, 4, 1)},
    interpreted={256: Tile(32, 64, 4, 1)},
)

#: Rows of a program that sums dO * O.
_DELTA_ROWS = 32


@triton.jit
def attention_backward_delta(
    grad_out,
    out,
    delta,
    grad_batch,
    grad_row,
    out_batch,
    out_row,
    heads,
    query_length,
    features: tl.constexpr,
    head: tl.constexpr,
    queries: tl.constexpr,
):
    blocks = tl.cdiv(query_length, queries)
    program = tl.program_id(0)
    sequence = program // blocks
    batch_index = (sequence // heads).to(tl.int64)
    head_index = (sequence % heads).to(tl.int64)
    grad_out += batch_index * grad_batch + head_index * features
    out += batch_index * out_batch + head_index * features
    rows = (program % blocks) * queries + tl.arange(0, queries)
    columns = tl.arange(0, head)
    grads = rows_of(grad_out, grad_row, query_length, rows, columns, features, head, True).to(tl.float32)
    values = rows_of(out, out_row, query_length, rows, columns, features, head, True).to(tl.float32)
    pointers = delta + sequence.to(tl.int64) * query_length + rows
    tl.store(pointers, tl.sum(grads * values, axis=1), mask=rows < query_length)


@triton.jit
def attention_backward_dkdv(
    q,
    k,
    v,
    grad_out,
    logsumexp,
    delta,
    grad_k,
    grad_v,
    q_batch,
    q_row,
    q_head,
    k_batch,
    k_row,
    k_head,
    v_batch,
    v_row,
    v_head,
    grad_batch,
    grad_row,
    heads,
    query_length,
    key_length,
    scale,
    scale_log2,
    features: tl.constexpr,
    head: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
):
    """dK and dV, contiguous (B, Lk, H, D), of one block of keys; products are transposed, (keys, queries).

    Keys past the last one need no mask: whatever comes of them stays in rows that are not stored.
    """
    blocks = tl.cdiv(key_length, keys)
    program = tl.program_id(0)
    sequence = program // blocks
    batch_index = (sequence // heads).to(tl.int64)
    head_index = (sequence % heads).to(tl.int64)
    q += batch_index * q_batch + head_index * q_head
    k += batch_index * k_batch + head_index * k_head
    v += batch_index * v_batch + head_index * v_head
    grad_out += batch_index * grad_batch + head_index * features
    logsumexp += sequence.to(tl.int64) * query_length
    delta += sequence.to(tl.int64) * query_length
    start = (batch_index * key_length * heads + head_index) * features
    grad_k += start
    grad_v += start

    key_rows = (program % blocks) * keys + tl.arange(0, keys)
    columns = tl.arange(0, head)
    k_block = rows_of(k, k_row, key_length, key_rows, columns, features, head, True)
    v_block = rows_of(v, v_row, key_length, key_rows, columns, features, head, True)
    total_k = tl.zeros((keys, head), dtype=tl.float32)
    total_v = tl.zeros((keys, head), dtype=tl.float32)
    # One loop with bounds: with a second one for whole blocks, as the forward pass has it, ten times as much spills.
    for first in range(0, query_length, queries):
        rows = first + tl.arange(0, queries)
        q_block = rows_of(q, q_row, query_length, rows, columns, features, head, True)
        grads = rows_of(grad_out, grad_row, query_length, rows, columns, features, head, True)
        # Past the last query the sum is infinite: no weight.
        sums = tl.load(logsumexp + rows, mask=rows < query_length, other=float("inf"))
        deltas = tl.load(delta + rows, mask=rows < query_length, other=0.0)
        scores = dot(k_block, tl.trans(q_block))
        weights = tl.exp2(scores * scale_log2 - sums[None, :])
        total_v = dot_add(weights.to(grads.dtype), grads, total_v)
        slopes = dot(v_block, tl.trans(grads))
        slopes = weights * (slopes - deltas[None, :])
        total_k = dot_add(slopes.to(q_block.dtype), q_block, total_k)
    row = heads * features
    store_rows(grad_k, row, key_length, key_rows, columns, total_k * scale, features, head)
    store_rows(grad_v, row, key_length, key_rows, columns, total_v, features, head)


@triton.jit
def attention_backward_dq(
    q,
    k,
    v,
    grad_out,
    logsumexp,
    delta,
    grad_q,
    q_batch,
    q_row,
    q_head,
    k_batch,
    k_row,
    k_head,
    v_batch,
    v_row,
    v_head,
    grad_batch,
    grad_row,
    heads,
    query_length,
    key_length,
    scale,
    scale_log2,
    features: tl.constexpr,
    head: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
):
    """dQ, contiguous (B, Lq, H, D), of one block of queries."""
    blocks = tl.cdiv(query_length, queries)
    program = tl.program_id(0)
    sequence = program // blocks
    batch_index = (sequence // heads).to(tl.int64)
    head_index = (sequence % heads).to(tl.int64)
    q += batch_index * q_batch + head_index * q_head
    k += batch_index * k_batch + head_index * k_head
    v += batch_index * v_batch + head_index * v_head
    grad_out += batch_index * grad_batch + head_index * features
    logsumexp += sequence.to(tl.int64) * query_length
    delta += sequence.to(tl.int64) * query_length
    grad_q += (batch_index * query_length * heads + head_index) * features

    rows = (program % blocks) * queries + tl.arange(0, queries)
    columns = tl.arange(0, head)
    q_block = rows_of(q, q_row, query_length, rows, columns, features, head, True)
    grads = rows_of(grad_out, grad_row, query_length, rows, columns, features, head, True)
    sums = tl.load(logsumexp + rows, mask=rows < query_length, other=float("inf"))
    deltas = tl.load(delta + rows, mask=rows < query_length, other=0.0)
    total = tl.zeros((queries, head), dtype=tl.float32)
    for first in range(0, key_length, keys):
        key_rows = first + tl.arange(0, keys)
        k_block = rows_of(k, k_row, key_length, key_rows, columns, features, head, True)
        v_block = rows_of(v, v_row, key_length, key_rows, columns, features, head, True)
        scores = dot(q_block, tl.trans(k_block))
        weights = tl.exp2(scores * scale_log2 - sums[:, None])
        # Past the last key the score is 0, and its weight infinite where all true scores are far below.
        weights = tl.where(key_rows[None, :] < key_length, weights, 0.0)
        slopes = dot(grads, tl.trans(v_block))
        slopes = weights * (slopes - deltas[:, None])
        total = dot_add(slopes.to(k_block.dtype), k_block, total)
    store_rows(grad_q, heads * features, query_length, rows, columns, total * scale, features, head)


def backward(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, logsumexp: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, contiguous in their shapes.

    Args:
        grad_out: (B, Lq, H * D), last axis contiguous.
        q, k, v: as the forward pass had them.
        out, logsumexp: what it wrote.
    """
    batch, query_length, heads, features = q.shape
    key_length, head = k.shape[1], padded_head(features)
    tile = TILES.choose(head, q)
    grad_q, grad_k, grad_v = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    delta = torch.empty_like(logsumexp)
    inputs = (q, k, v, grad_out, logsumexp, delta)
    shapes = (
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        *grad_out.stride()[:2],
        heads,
        query_length,
        key_length,
        features**-0.5,
        features**-0.5 * LOG2_E,
    )
    options = {"features": features, "head": head, "num_warps": tile.warps, "num_stages": tile.stages}
    launch(
        attention_backward_delta,
        (triton.cdiv(query_length, _DELTA_ROWS) * batch * heads,),
        q,
        grad_out,
        out,
        delta,
        *grad_out.stride()[:2],
        *out.stride()[:2],
        heads,
        query_length,
        features=features,
        head=head,
        queries=_DELTA_ROWS,
        num_warps=4,
    )
    grid = (triton.cdiv(key_length, tile.keys) * batch * heads,)
    sides = {"queries": tile.queries, "keys": tile.keys}
    launch(attention_backward_dkdv, grid, q, *inputs, grad_k, grad_v, *shapes, **sides, **options)
    grid = (triton.cdiv(query_length, tile.keys) * batch * heads,)
    sides = {"queries": tile.keys, "keys": tile.queries}
    launch(attention_backward_dq, grid, q, *inputs, grad_q, *shapes, **sides, **options)
    return grad_q, grad_k, grad_v
