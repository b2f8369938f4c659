"""Adaptive LayerNorm and gated residuals, one token per program.

One forward and one backward kernel serve ``adaln``, ``gated_residual`` and both in a single pass: what an operation
does not need is cut out when the kernel is compiled. Arithmetic is float32 in registers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import block_size, launch, rows_per_program, warps_for

#: Columns of a row that one warp of the backward pass takes: 16 bytes per thread in half precision.
_WARP_COLUMNS = 256

#: Rows of a program of the backward pass at least: its partial sums are up to three rows of float32.
_MIN_ROWS = 8


class Share(NamedTuple):
    """How the backward pass shares out its rows."""

    tile: int  #: rows that a program takes at a time: their loads are under way together, they share reductions
    warps: int  #: of all programs on one multiprocessor: what its registers hold, so that one wave does the work


#: By (gated, normed). Registers per thread, from docs/kernels, times 32 times these warps stay within 65,536.
SHARES = {(True, True): Share(2, 16), (False, True): Share(1, 32), (True, False): Share(2, 32)}


@triton.jit
def _segment_vector(a, a_batch, b, b_batch, in_a, batch, columns, inside):
    """A modulation vector of the segment that the row belongs to.

    A branch, which all threads of a row take together, and not a choice between the two pointers: Triton 3.6 cannot
    turn a chosen pointer into AMD's buffer loads and fails.
    """
    if in_a:
        vector = tl.load(a + batch * a_batch + columns, mask=inside, other=0.0)
    else:
        vector = tl.load(b + batch * b_batch + columns, mask=inside, other=0.0)
    return vector.to(tl.float32)


@triton.jit
def _normalize(x, inside, eps, width: tl.constexpr):
    """LayerNorm without affine parameters, and the reciprocal deviation; columns outside the row become 0."""
    mean = tl.sum(x, axis=0) / width
    centered = tl.where(inside, x - mean, 0.0)
    reciprocal = 1.0 / tl.sqrt(tl.sum(centered * centered, axis=0) / width + eps)
    return centered * reciprocal, reciprocal


@triton.jit(do_not_specialize=["first"])
def adaln_forward(
    x,
    y,
    z,
    h,
    gate_a,
    shift_a,
    scale_a,
    gate_b,
    shift_b,
    scale_b,
    first,
    eps,
    x_batch,
    x_row,
    y_batch,
    y_row,
    z_batch,
    z_row,
    h_batch,
    h_row,
    gate_a_batch,
    shift_a_batch,
    scale_a_batch,
    gate_b_batch,
    shift_b_batch,
    scale_b_batch,
    gated: tl.constexpr,
    normed: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    batch = tl.program_id(1).to(tl.int64)
    in_a = row < first
    columns = tl.arange(0, block)
    inside = columns < width
    value = tl.load(x + batch * x_batch + row * x_row + columns, mask=inside, other=0.0).to(tl.float32)
    if gated:
        branch = tl.load(y + batch * y_batch + row * y_row + columns, mask=inside, other=0.0).to(tl.float32)
        gate = _segment_vector(gate_a, gate_a_batch, gate_b, gate_b_batch, in_a, batch, columns, inside)
        # Rounded as it is stored: the norm sees what a second pass would read.
        rounded = (value + gate * branch).to(z.dtype.element_ty)
        tl.store(z + batch * z_batch + row * z_row + columns, rounded, mask=inside)
        value = rounded.to(tl.float32)
    if normed:
        shift = _segment_vector(shift_a, shift_a_batch, shift_b, shift_b_batch, in_a, batch, columns, inside)
        scale = _segment_vector(scale_a, scale_a_batch, scale_b, scale_b_batch, in_a, batch, columns, inside)
        normal, _ = _normalize(value, inside, eps, width)
        out = normal * (1.0 + scale) + shift
        tl.store(h + batch * h_batch + row * h_row + columns, out.to(h.dtype.element_ty), mask=inside)


def forward(
    x: Tensor,
    y: Tensor | None,
    z: Tensor | None,
    h: Tensor | None,
    lengths: Sequence[int],
    gates: Sequence[Tensor],
    shifts: Sequence[Tensor],
    scales: Sequence[Tensor],
    eps: float,
) -> None:
    """Write ``z = x + gate * y`` where y and z are given, and ``h = adaln(z or x)`` where h is.

    Args:
        x, y, z, h: (B, L, C), rows contiguous, any other strides; z may be x.
        lengths: tokens of each segment, they sum to L; every two segments are one launch.
        gates, shifts, scales: (B, C) per segment, batch stride 0 allowed; empty where they are not needed.
    """
    gated, normed = z is not None, h is not None
    batch, _, width = x.shape
    block = block_size(width)
    none = [x] * len(lengths)  # never read
    segments = [
        (length, index)
        for index, length in enumerate(lengths)
        if length  # a kernel has no use for an empty segment
    ]
    gates, shifts, scales = (gates or none), (shifts or none), (scales or none)
    y, z, h = (x if tensor is None else tensor for tensor in (y, z, h))
    start = 0
    for position in range(0, len(segments), 2):
        pair = segments[position : position + 2]
        (first, a), (last, b) = pair[0], pair[-1]
        rows = first + (last if len(pair) == 2 else 0)
        parts = [_part(tensor, start, rows) for tensor in (x, y, z, h)]
        vectors = (gates[a], shifts[a], scales[a], gates[b], shifts[b], scales[b])
        launch(
            adaln_forward,
            (rows, batch),
            x,
            *parts,
            *vectors,
            first,
            eps,
            *(stride for part in parts for stride in part.stride()[:2]),
            *(vector.stride(0) for vector in vectors),
            gated=gated,
            normed=normed,
            width=width,
            block=block,
            num_warps=warps_for(block),
        )
        start += rows


def _part(tokens: Tensor, start: int, length: int) -> Tensor:
    """Rows of a sequence; of a whole one no view is made."""
    return tokens if length == tokens.shape[1] else tokens[:, start : start + length]


@triton.jit
def _tile(x, x_row, rows, columns, inside):
    """Rows of a matrix as float32, (rows, columns); zeros outside."""
    return tl.load(x + rows[:, None] * x_row + columns[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _store_tile(x, x_row, rows, columns, values, inside):
    tl.store(x + rows[:, None] * x_row + columns[None, :], values.to(x.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["length", "rows"])
def adaln_backward(
    x,
    y,
    gate,
    scale,
    grad_z,
    grad_h,
    grad_x,
    grad_y,
    partial,
    length,
    rows,
    eps,
    x_batch,
    x_row,
    y_batch,
    y_row,
    gate_batch,
    scale_batch,
    grad_z_batch,
    grad_z_row,
    grad_h_batch,
    grad_h_row,
    grad_x_batch,
    grad_x_row,
    grad_y_batch,
    grad_y_row,
    gated: tl.constexpr,
    normed: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
):
    """``rows`` rows of one batch element, ``tile`` at a time, and their sums for the vectors' gradients.

    With n = LayerNorm(x), r the reciprocal deviation and g = grad_h * (1 + scale):
    grad_x = grad_z + r * (g - mean(g) - n * mean(g * n)), grad_y = gate * grad_x; the vectors' gradients are the sums
    over rows of y * grad_x (gate), grad_h (shift) and n * grad_h (scale).
    """
    chunk = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, block)
    column_inside = columns < width
    gate_sum = tl.zeros((block,), tl.float32)
    shift_sum = tl.zeros((block,), tl.float32)
    scale_sum = tl.zeros((block,), tl.float32)
    if gated:
        gates = tl.load(gate + batch * gate_batch + columns, mask=column_inside, other=0.0).to(tl.float32)
        y += batch * y_batch
        grad_z += batch * grad_z_batch
        grad_y += batch * grad_y_batch
    if normed:
        factor = 1.0 + tl.load(scale + batch * scale_batch + columns, mask=column_inside, other=0.0).to(tl.float32)
        x += batch * x_batch
        grad_h += batch * grad_h_batch
        grad_x += batch * grad_x_batch
    first = chunk.to(tl.int64) * rows
    end = tl.minimum(first + rows, length)
    for offset in range(0, rows, tile):
        row = first + offset + tl.arange(0, tile)
        inside = (row < end)[:, None] & column_inside[None, :]
        total = tl.zeros((tile, block), tl.float32)
        if gated:
            total += _tile(grad_z, grad_z_row, row, columns, inside)
        if normed:
            value = _tile(x, x_row, row, columns, inside)
            slope = _tile(grad_h, grad_h_row, row, columns, inside)
            centered = tl.where(inside, value - (tl.sum(value, axis=1) / width)[:, None], 0.0)
            reciprocal = 1.0 / tl.sqrt(tl.sum(centered * centered, axis=1) / width + eps)[:, None]
            normal = centered * reciprocal
            shift_sum += tl.sum(slope, axis=0)
            scale_sum += tl.sum(slope * normal, axis=0)
            slope = slope * factor[None, :]
            mean = (tl.sum(slope, axis=1) / width)[:, None]
            along = (tl.sum(slope * normal, axis=1) / width)[:, None]
            total += reciprocal * (slope - mean - normal * along)
            _store_tile(grad_x, grad_x_row, row, columns, total, inside)
        if gated:
            gate_sum += tl.sum(total * _tile(y, y_row, row, columns, inside), axis=0)
            _store_tile(grad_y, grad_y_row, row, columns, total * gates[None, :], inside)
    # partial is (B, chunks, kinds, C), kinds being those of gate, shift and scale that exist, in this order.
    slot = partial + (batch * tl.num_programs(0) + chunk) * (gated + 2 * normed) * width + columns
    if gated:
        tl.store(slot, gate_sum, mask=column_inside)
        slot += width
    if normed:
        tl.store(slot, shift_sum, mask=column_inside)
        tl.store(slot + width, scale_sum, mask=column_inside)


def backward(
    x: Tensor | None,
    y: Tensor | None,
    grad_z: Tensor | None,
    grad_h: Tensor | None,
    lengths: Sequence[int],
    gates: Sequence[Tensor],
    scales: Sequence[Tensor],
    eps: float,
) -> list[Tensor]:
    """Gradients of :func:`forward`; those of the vectors by sums over each program's rows, then over programs.

    Args:
        x: what the norm was taken of, (B, L, C), and ``grad_h``, the gradient of h; None without a norm.
        y: branch of the residual, and ``grad_z``, the gradient of the sum; None without a residual.
        lengths, gates, scales: as in the forward pass.

    Returns:
        Gradients of those that exist of x, y, then gates, shifts, scales.
    """
    gated, normed = grad_z is not None, grad_h is not None
    tokens = [tensor for tensor in (x, y) if tensor is not None]
    like = tokens[0]
    out = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tokens]
    # A kernel never touches the pointer of what its operation has not; any tensor stands there.
    arguments = [
        like if tensor is None else tensor
        for tensor in (x, y, grad_z, grad_h, out[0] if normed else None, out[-1] if gated else None)
    ]
    batch, _, width = like.shape
    block = block_size(width)
    share = SHARES[gated, normed]
    warps = min(max(block // _WARP_COLUMNS, 1), 16)
    sums = []
    start = 0
    for index, length in enumerate(lengths):
        rows = rows_per_program(length * batch, like.device, share.warps // warps, _MIN_ROWS)
        chunks = triton.cdiv(length, rows)
        partial = torch.empty(batch, chunks, gated + 2 * normed, width, dtype=torch.float32, device=like.device)
        parts = [_part(tensor, start, length) for tensor in arguments]
        gate = gates[index] if gated else like  # one of them may stand where nothing is read
        scale = scales[index] if normed else like
        strides = [part.stride()[:2] for part in parts]
        launch(
            adaln_backward,
            (chunks, batch),
            like,
            *parts[:2],
            gate,
            scale,
            *parts[2:],
            partial,
            length,
            rows,
            eps,
            *strides[0],
            *strides[1],
            gate.stride(0),
            scale.stride(0),
            *(stride for pair in strides[2:] for stride in pair),
            gated=gated,
            normed=normed,
            width=width,
            block=block,
            tile=share.tile,
            num_warps=warps,
        )
        start += length
        sums.append([kind.sum(1).to(like.dtype) for kind in partial.unbind(2)])
    return [*out, *(vector for kind in zip(*sums, strict=True) for vector in kind)]
