"""SwiGLU from and into strided rows."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import block_size, launch, warps_for

#: Columns of a row that one program takes at most.
_MAX_BLOCK = 2048


@triton.jit
def swiglu_forward(x, out, x_batch, x_row, out_batch, out_row, width, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    inside = columns < width
    start = x + batch * x_batch + row * x_row
    gate = tl.load(start + columns, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(start + width + columns, mask=inside, other=0.0).to(tl.float32)
    # The gate is rounded before the product, as two operations would.
    activated = (gate / (1.0 + tl.exp(-gate))).to(x.dtype.element_ty).to(tl.float32)
    tl.store(
        out + batch * out_batch + row * out_row + columns, (activated * value).to(out.dtype.element_ty), mask=inside
    )


@triton.jit
def swiglu_backward(
    x, grad, grad_x, x_batch, x_row, grad_batch, grad_row, grad_x_batch, grad_x_row, width, block: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    batch = tl.program_id(2).to(tl.int64)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    inside = columns < width
    start = x + batch * x_batch + row * x_row
    gate = tl.load(start + columns, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(start + width + columns, mask=inside, other=0.0).to(tl.float32)
    slope = tl.load(grad + batch * grad_batch + row * grad_row + columns, mask=inside, other=0.0).to(tl.float32)
    sigmoid = 1.0 / (1.0 + tl.exp(-gate))
    to_gate = slope * value * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    to_value = slope * gate * sigmoid
    target = grad_x + batch * grad_x_batch + row * grad_x_row
    tl.store(target + columns, to_gate.to(grad_x.dtype.element_ty), mask=inside)
    tl.store(target + width + columns, to_value.to(grad_x.dtype.element_ty), mask=inside)


def forward(x: Tensor, out: Tensor) -> None:
    """``out = silu(a) * b`` for the halves of x, (B, L, 2 M) -> (B, L, M); only the last axes must be contiguous."""
    batch, length, _ = x.shape
    width = out.shape[2]
    block = min(block_size(width), _MAX_BLOCK)
    grid = (length, triton.cdiv(width, block), batch)
    strides = (*x.stride()[:2], *out.stride()[:2])
    launch(swiglu_forward, grid, x, x, out, *strides, width, block=block, num_warps=warps_for(block))


def backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of x, (B, L, 2 M), from that of the product, (B, L, M)."""
    batch, length, width = grad.shape
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    block = min(block_size(width), _MAX_BLOCK)
    grid = (length, triton.cdiv(width, block), batch)
    strides = (*x.stride()[:2], *grad.stride()[:2], *grad_x.stride()[:2])
    launch(swiglu_backward, grid, x, x, grad, grad_x, *strides, width, block=block, num_warps=warps_for(block))
    return grad_x
