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

from ..availability import interpreted
from .launching import block_size, on_device_of

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

#: By padded head size: what fits the shared memory of these GPUs, with accumulators that stay in registers.
_HOPPER = {64: Tile(128, 128, 8, 3), 128: Tile(128, 64, 8, 3), 256: Tile(128, 64, 8, 2)}
_AMPERE = {64: Tile(128, 64, 4, 3), 128: Tile(128, 64, 8, 3), 256: Tile(64, 32, 8, 2)}
_AMD = {64: Tile(128, 64, 4, 1), 128: Tile(128, 64, 4, 1), 256: Tile(64, 32, 4, 1)}

#: Without tensor cores, for float32 that is kept whole and on Turing, factors live in registers too.
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

    def choose(self, head: int, dtype: torch.dtype, device: torch.device) -> Tile:
        """The tile for a padded head size."""
        return self.choose_for(head, dtype, architecture_of(device))

    def choose_for(self, head: int, dtype: torch.dtype, architecture: int | str | None) -> Tile:
        """``architecture`` is 10 * major + minor, "amd", or None in the interpreter."""
        if architecture is None:
            tiles = self.interpreted
        elif architecture == "amd":
            tiles = self.scalar if dtype == torch.float32 else self.amd
        elif dtype == torch.float32 or int(architecture) < 80:
            tiles = self.scalar
        else:
            tiles = self.hopper if architecture in (90, 100, 103) else self.ampere
        return next(tile for size, tile in tiles.items() if head <= size)


TILES = TileTable(_HOPPER, _AMPERE, _AMD, _SCALAR, _INTERPRETED)


def architecture_of(device: torch.device) -> int | str | None:
    if device.type != "cuda":
        return None
    if torch.version.hip is not None:
        return "amd"
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


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
    key_mask,
    first,
    last,
    key_length,
    scale,
    columns,
    features: tl.constexpr,
    head: tl.constexpr,
    keys: tl.constexpr,
    masked: tl.constexpr,
    bounded: tl.constexpr,
):
    """Walk over the keys from ``first`` to ``last``: weighted values, running maximum and sum of each query."""
    for start in range(first, last, keys):
        rows = start + tl.arange(0, keys)
        block = rows_of(k, k_row, key_length, rows, columns, features, head, bounded)
        scores = dot(q, tl.trans(block))
        if bounded:
            scores = tl.where(rows[None, :] < key_length, scores, float("-inf"))
        if masked:
            attended = tl.load(key_mask + rows, mask=rows < key_length, other=0)
            scores = tl.where(attended[None, :] != 0, scores, float("-inf"))
        highest = tl.maximum(peak, tl.max(scores, axis=1) * scale)
        if masked:
            # Nothing attended so far: any finite number keeps -inf - -inf out of the exponent.
            origin = tl.where(highest == float("-inf"), 0.0, highest)
        else:
            origin = highest
        weights = tl.exp2(scores * scale - origin[:, None])
        kept = tl.exp2(peak - origin)
        weight = weight * kept + tl.sum(weights, axis=1)
        block = rows_of(v, v_row, key_length, rows, columns, features, head, bounded)
        total = total * kept[:, None]
        total = dot_add(weights.to(block.dtype), block, total)
        peak = highest
    return total, peak, weight


@triton.jit
def _forward(
    q,
    k,
    v,
    key_mask,
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
    mask_batch,
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
    masked: tl.constexpr,
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
    if masked:
        key_mask += batch_index * mask_batch

    rows = (program % blocks) * queries + tl.arange(0, queries)
    columns = tl.arange(0, head)
    q_block = rows_of(q, q_row, query_length, rows, columns, features, head, True)
    total = tl.zeros((queries, head), dtype=tl.float32)
    peak = tl.full((queries,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((queries,), dtype=tl.float32)
    whole = key_length // keys * keys
    total, peak, weight = _over_keys(
        total, peak, weight, q_block, k, k_row, v, v_row, key_mask, 0, whole, key_length, scale, columns,
        features, head, keys, masked, False,
    )  # fmt: skip
    total, peak, weight = _over_keys(
        total, peak, weight, q_block, k, k_row, v, v_row, key_mask, whole, key_length, key_length, scale, columns,
        features, head, keys, masked, True,
    )  # fmt: skip

    if masked:
        # Without a key there is no weight: the row is zero, and an infinite sum keeps it out of the gradients.
        empty = weight == 0.0
        weight = tl.where(empty, 1.0, weight)
        sums = tl.where(empty, float("inf"), peak + tl.log2(weight))
    else:
        sums = peak + tl.log2(weight)
    store_rows(out, out_row, query_length, rows, columns, total / weight[:, None], features, head)
    tl.store(logsumexp + rows, sums, mask=rows < query_length)


def forward(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, out: Tensor) -> Tensor:
    """Attend and write ``out``.

    Args:
        q, k, v: (B, L, H, D), last axis contiguous, one dtype; k and v share a length of at least 1.
        key_mask: (B, Lk) bool, last axis contiguous.
        out: (B, Lq, H * D), last axis contiguous.

    Returns:
        (B, H, Lq) float32: logarithm to base 2 of each row's sum of exponentials, for the backward pass; +inf where
        no key is attended.
    """
    batch, query_length, heads, features = q.shape
    head = padded_head(features)
    tile = TILES.choose(head, q.dtype, q.device)
    logsumexp = q.new_empty(batch, heads, query_length, dtype=torch.float32)
    grid = (triton.cdiv(query_length, tile.queries) * batch * heads,)
    mask = q if key_mask is None else key_mask.view(torch.uint8)
    with on_device_of(q):
        _forward[grid](
            q,
            k,
            v,
            mask,
            out,
            logsumexp,
            *q.stride()[:3],
            *k.stride()[:3],
            *v.stride()[:3],
            mask.stride(0),
            *out.stride()[:2],
            heads,
            query_length,
            k.shape[1],
            features**-0.5 * LOG2_E,
            features=features,
            head=head,
            queries=tile.queries,
            keys=tile.keys,
            masked=key_mask is not None,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return logsumexp
