"""Adaptive LayerNorm and gated residuals on Triton."""

from typing import Any, List, Sequence  # noqa: UP035  what custom_op knows before PyTorch 2.7

import torch
from torch import Tensor
from torch.library import custom_op

from ...adaln import LAYER_NORM_EPS
from ...registry import count
from ...tracing import needs_gradient
from ..adaln import backward, forward
from .eager import Formula, contiguous_rows, differentiable, unrecorded, unwatched


def run_adaln(x: Tensor, lengths: list[int], shifts: list[Tensor], scales: list[Tensor]) -> Tensor:
    if not unwatched(x, *shifts, *scales):
        return adaln(x, lengths, shifts, scales)
    if needs_gradient(x, *shifts, *scales):
        return differentiable(_ADALN, x, lengths, shifts, scales)
    return _adaln(x, lengths, shifts, scales)


def run_gated_residual(x: Tensor, y: Tensor, lengths: list[int], gates: list[Tensor], inplace: bool) -> Tensor:
    if not unwatched(x, y, *gates):
        return gated_residual(x, y, lengths, gates)
    if needs_gradient(x, y, *gates):
        return differentiable(_GATED_RESIDUAL, x, y, lengths, gates)
    return _gated_residual(x, y, lengths, gates, inplace)


def run_gated_residual_adaln(
    x: Tensor,
    y: Tensor,
    lengths: list[int],
    gates: list[Tensor],
    shifts: list[Tensor],
    scales: list[Tensor],
    inplace: bool,
) -> tuple[Tensor, Tensor]:
    tensors = (x, y, *gates, *shifts, *scales)
    if not unwatched(*tensors):
        return gated_residual_adaln(x, y, lengths, gates, shifts, scales)
    if needs_gradient(*tensors):
        return differentiable(_GATED_RESIDUAL_ADALN, x, y, lengths, gates, shifts, scales)
    return _gated_residual_adaln(x, y, lengths, gates, shifts, scales, inplace)


def _adaln(x: Tensor, lengths: Sequence[int], shifts: Sequence[Tensor], scales: Sequence[Tensor]) -> Tensor:
    h = _like(x)
    forward(x, None, None, h, lengths, (), shifts, scales, LAYER_NORM_EPS)
    count("adaln", "triton")
    return h


def _gated_residual(
    x: Tensor, y: Tensor, lengths: Sequence[int], gates: Sequence[Tensor], inplace: bool = False
) -> Tensor:
    z = x if inplace else _like(x)
    forward(x, y, z, None, lengths, gates, (), (), LAYER_NORM_EPS)
    count("gated_residual", "triton")
    return z


def _gated_residual_adaln(
    x: Tensor,
    y: Tensor,
    lengths: Sequence[int],
    gates: Sequence[Tensor],
    shifts: Sequence[Tensor],
    scales: Sequence[Tensor],
    inplace: bool = False,
) -> tuple[Tensor, Tensor]:
    z, h = x if inplace else _like(x), _like(x)
    forward(x, y, z, h, lengths, gates, shifts, scales, LAYER_NORM_EPS)
    count("gated_residual_adaln", "triton")
    return z, h


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@custom_op("mforce::adaln", mutates_args=())
def adaln(x: Tensor, lengths: Sequence[int], shifts: Sequence[Tensor], scales: Sequence[Tensor]) -> Tensor:
    return _adaln(x, lengths, shifts, scales)


@adaln.register_fake
def _(x: Tensor, lengths: Sequence[int], shifts: Sequence[Tensor], scales: Sequence[Tensor]) -> Tensor:
    return _like(x)


@custom_op("mforce::gated_residual", mutates_args=())
def gated_residual(x: Tensor, y: Tensor, lengths: Sequence[int], gates: Sequence[Tensor]) -> Tensor:
    return _gated_residual(x, y, lengths, gates)


@gated_residual.register_fake
def _(x: Tensor, y: Tensor, lengths: Sequence[int], gates: Sequence[Tensor]) -> Tensor:
    return _like(x)


@custom_op("mforce::gated_residual_adaln", mutates_args=())
def gated_residual_adaln(
    x: Tensor,
    y: Tensor,
    lengths: Sequence[int],
    gates: Sequence[Tensor],
    shifts: Sequence[Tensor],
    scales: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    return _gated_residual_adaln(x, y, lengths, gates, shifts, scales)


@gated_residual_adaln.register_fake
def _(
    x: Tensor,
    y: Tensor,
    lengths: Sequence[int],
    gates: Sequence[Tensor],
    shifts: Sequence[Tensor],
    scales: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    return _like(x), _like(x)


def _modulation_backward(
    x: Tensor | None,
    y: Tensor | None,
    grad_z: Tensor | None,
    grad_h: Tensor | None,
    lengths: Sequence[int],
    gates: Sequence[Tensor],
    scales: Sequence[Tensor],
) -> list[Tensor]:
    grads = backward(x, y, grad_z, grad_h, lengths, gates, scales, LAYER_NORM_EPS)
    count("modulation_backward", "triton")
    return grads


@custom_op("mforce::modulation_backward", mutates_args=())
def modulation_backward(
    x: Tensor | None,
    y: Tensor | None,
    grad_z: Tensor | None,
    grad_h: Tensor | None,
    lengths: Sequence[int],
    gates: Sequence[Tensor],
    scales: Sequence[Tensor],
) -> List[Tensor]:  # noqa: UP006
    """Gradients that exist, in the order x, y, gates, shifts, scales."""
    return _modulation_backward(x, y, grad_z, grad_h, lengths, gates, scales)


@modulation_backward.register_fake
def _(
    x: Tensor | None,
    y: Tensor | None,
    grad_z: Tensor | None,
    grad_h: Tensor | None,
    lengths: Sequence[int],
    gates: Sequence[Tensor],
    scales: Sequence[Tensor],
) -> list[Tensor]:
    tokens = [tensor for tensor in (x, y) if tensor is not None]
    like = tokens[0]
    vectors = len(lengths) * ((grad_z is not None) + 2 * (grad_h is not None))
    return [
        *(_like(tensor) for tensor in tokens),
        *(like.new_empty(like.shape[0], like.shape[2]) for _ in range(vectors)),
    ]


def _gradients(
    x: Tensor | None,
    y: Tensor | None,
    grad_z: Tensor | None,
    grad_h: Tensor | None,
    lengths: Sequence[int],
    gates: Sequence[Tensor],
    scales: Sequence[Tensor],
) -> list[Tensor]:
    given = (tensor for tensor in (x, y, grad_z, grad_h) if tensor is not None)
    run = _modulation_backward if unrecorded(*given) else modulation_backward
    return run(x, y, grad_z, grad_h, lengths, gates, scales)


def _adaln_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, ctx.lengths, _, scales = inputs
    ctx.save_for_backward(x, *scales)


def _adaln_backward(ctx: Any, grad: Tensor) -> tuple:
    x, *scales = ctx.saved_tensors
    grad_x, *vectors = _gradients(x, None, None, contiguous_rows(grad), ctx.lengths, [], scales)
    count = len(scales)
    return grad_x, None, vectors[:count], vectors[count:]


adaln.register_autograd(_adaln_backward, setup_context=_adaln_setup)

_ADALN = Formula(_adaln, _adaln_setup, _adaln_backward)


def _residual_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, y, ctx.lengths, gates = inputs
    ctx.save_for_backward(y, *gates)


def _residual_backward(ctx: Any, grad: Tensor) -> tuple:
    y, *gates = ctx.saved_tensors
    grad_y, *grad_gates = _gradients(None, y, contiguous_rows(grad), None, ctx.lengths, gates, [])
    return grad, grad_y, None, grad_gates


gated_residual.register_autograd(_residual_backward, setup_context=_residual_setup)

_GATED_RESIDUAL = Formula(_gated_residual, _residual_setup, _residual_backward)


def _both_setup(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    _, y, ctx.lengths, gates, _, scales = inputs
    ctx.save_for_backward(output[0], y, *gates, *scales)


def _both_backward(ctx: Any, grad_z: Tensor, grad_h: Tensor) -> tuple:
    z, y, *vectors = ctx.saved_tensors
    count = len(ctx.lengths)
    grad_x, grad_y, *grads = _gradients(
        z, y, contiguous_rows(grad_z), contiguous_rows(grad_h), ctx.lengths, vectors[:count], vectors[count:]
    )
    return grad_x, grad_y, None, grads[:count], grads[count : 2 * count], grads[2 * count :]


gated_residual_adaln.register_autograd(_both_backward, setup_context=_both_setup)

_GATED_RESIDUAL_ADALN = Formula(_gated_residual_adaln, _both_setup, _both_backward)
