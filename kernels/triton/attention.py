"""Flash attention (Dao et al., arXiv 2205.14135, 2307.08691), forward: scores never leave the chip.

A program owns a block of queries of one head and walks over the keys with a running softmax in base 2: the exponent
``scale * log2(e)`` is folded into one multiplication. Whole blocks of keys need no bounds, so they have a loop of
their own; what is left over takes one more turn with bounds. Every offset that grows with a tensor is 64 bits wide.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .interpreter import interpreted
from .launching import block_size, launch, target_architecture

LOG2_E = math.log2(math.e)

#: The interpreter multiplies bfloat16 by its bits, as integers.
_WIDEN = tl.constexpr(interpreted())

#: tl.dot takes no side below 16.
_MIN_SIDE = 16


class Tile(NamedTuple):
    """Queries and keys of one step, warps of a program and depth of the pipeline of loads."""

    queries: int
    keys: int
    warps: int
    stages: int


Tiles = dict[int, Tile]

#: GPUs with 227 KB of shared memory per program: Hopper and the large Blackwells. All others have at least 99 KB.
_DATA_CENTER = (90, 100, 103)

#: By padded head size: what fits the shared memory of these GPUs, with accumulators that stay in registers.
_HOPPER = {64: Tile(128, 128, 8, 3), 128: Tile(128, 64, 8, 3), 256: Tile(128, 64, 8, 2)}
_AMPERE = {64: Tile(128, 64, 4, 3), 128: Tile(128, 64, 8, 3), 256: Tile(64, 32, 8, 2)}
_AMD = {64: Tile(128, 64, 4, 1), 128: Tile(128, 64, 4, 1), 256: Tile(64, 32, 4, 1)}

#: For float32, which is kept whole: without tensor cores the factors live in registers too.
_SCALAR = {64: Tile(32, 32, 4, 1), 128: Tile(32, 32, 8, 1), 256: Tile(16, 32, 4, 1)}

#: The interpreter's time goes by the number of steps, but tests want more than one.
_INTERPRETED = {256: Tile(64, 32, 4, 1)}


class TileTable(NamedTuple):
    """Tiles of one kernel by the kind of GPU."""

    hopper: Tiles
    ampere: Tiles
    amd: Tiles
    scalar: Tiles
    interpreted: Tiles

    def choose(self, head: int, q: Tensor) -> Tile:
        """The tile for a padded head size on the GPU that holds the queries."""
        with torch.cuda.device_of(q):
            architecture = target_architecture()
        if architecture is None:
            tiles = self.interpreted
        elif q.dtype == torch.float32:
            tiles = self.scalar
        elif architecture == "amd":
            tiles = self.amd
        else:
            tiles = self.hopper if architecture in _DATA_CENTER else self.ampere
        return next(tile for size, tile in tiles.items() if head <= size)


TILES = TileTable(_HOPPER, _AMPERE, _AMD, _SCALAR, _INTERPRETED)


def padded_head(features: int) -> int:
    return max(block_size(features), _MIN_SIDE)


@triton.jit
def dot(a, b):
    """``a @ b`` summed in float32, factors of float32 kept whole."""
    if _WIDEN:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def dot_add(a, b, total):
    """``a @ b + total``."""
    if _WIDEN:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def rows_of(x, stride, length, rows, columns, features: tl.constexpr, head: tl.constexpr, bounded: tl.constexpr):
    """Rows of a matrix, (rows, head) in its own dtype; zeros past its sides."""
    pointers = x + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    if bounded and features < head:
        return tl.load(pointers, mask=(rows[:, None] < length) & (columns[None, :] < features), other=0.0)
    elif bounded:
        return tl.load(pointers, mask=rows[:, None] < length, other=0.0)
    elif features < head:
        return tl.load(pointers, mask=columns[None, :] < features, other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def store_rows(x, stride, length, rows, columns, values, features: tl.constexpr, head: tl.constexpr):
    pointers = x + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    inside = rows[:, None] < length
    if features < head:
        inside = inside & (columns[None, :] < features)
    tl.store(pointers, values.to(x.dtype.element_ty), mask=inside)


@triton.jit
def _over_keys(
    total,
    peak,
    weight,
    q,
    k,
    k_row,
    v,
    v_row,
    first,
    last,
    key_length,
    scale,
    columns,
    features: tl.constexpr,
    head: tl.constexpr,
    keys: tl.constexpr,
    bounded: tl.constexpr,
):
    """Walk over the keys from ``first`` to ``last``: weighted values, running maximum and sum of each query."""
    for start in range(first, last, keys):
        rows = start + tl.arange(0, keys)
        block = rows_of(k, k_row, key_length, rows, columns, features, head, bounded)
        scores = dot(q, tl.trans(block))
        if bounded:
            scores = tl.where(rows[None, :] < key_length, scores, float("-inf"))
        highest = tl.maximum(peak, tl.max(scores, axis=1) * scale)
        weights = tl.exp2(scores * scale - highest[:, None])
        kept = tl.exp2(peak - highest)
        weight = weight * kept + tl.sum(weights, axis=1)
        block = rows_of(v, v_row, key_length, rows, columns, features, head, bounded)
        total = total * kept[:, None]
        total = dot_add(weights.to(block.dtype), block, total)
        peak = highest
    return total, peak, weight


@triton.jit
def attention_forward(
    q,
    k,
    v,
    out,
    logsumexp,
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
    heads,
    query_length,
    key_length,
    scale,
    features: tl.constexpr,
    head: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
):
    blocks = tl.cdiv(query_length, queries)
    program = tl.program_id(0)
    sequence = program // blocks
    batch_index = (sequence // heads).to(tl.int64)
    head_index = (sequence % heads).to(tl.int64)
    q += batch_index * q_batch + head_index * q_head
    k += batch_index * k_batch + head_index * k_head
    v += batch_index * v_batch + head_index * v_head
    out += batch_index * out_batch + head_index * features
    logsumexp += sequence.to(tl.int64) * query_length

    rows = (program % blocks) * queries + tl.arange(0, queries)
    columns = tl.arange(0, head)
    q_block = rows_of(q, q_row, query_length, rows, columns, features, head, True)
    total = tl.zeros((queries, head), dtype=tl.float32)
    peak = tl.full((queries,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((queries,), dtype=tl.float32)
    whole = key_length // keys * keys
    total, peak, weight = _over_keys(
        total, peak, weight, q_block, k, k_row, v, v_row, 0, whole, key_length, scale, columns,
        features, head, keys, False,
    )  # fmt: skip
    total, peak, weight = _over_keys(
        total, peak, weight, q_block, k, k_row, v, v_row, whole, key_length, key_length, scale, columns,
        features, head, keys, True,
    )  # fmt: skip

    store_rows(out, out_row, query_length, rows, columns, total / weight[:, None], features, head)
    tl.store(logsumexp + rows, peak + tl.log2(weight), mask=rows < query_length)


def forward(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> Tensor:
    """Attend and write ``out``.

    Args:
        q, k, v: (B, L, H, D), last axis contiguous, one dtype; k and v share a length of at least 1.
        out: (B, Lq, H * D), last axis contiguous.

    Returns:
        (B, H, Lq) float32: logarithm to base 2 of each row's sum of exponentials, for the backward pass.
    """
    batch, query_length, heads, features = q.shape
    head = padded_head(features)
    tile = TILES.choose(head, q)
    logsumexp = q.new_empty(batch, heads, query_length, dtype=torch.float32)
    launch(
        attention_forward,
        (triton.cdiv(query_length, tile.queries) * batch * heads,),
        q,
        q,
        k,
        v,
        out,
        logsumexp,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        *out.stride()[:2],
        heads,
        query_length,
        k.shape[1],
        features**-0.5 * LOG2_E,
        features=features,
        head=head,
        queries=tile.queries,
        keys=tile.keys,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return logsumexp
