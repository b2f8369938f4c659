"""Adaptive LayerNorm over a sequence whose segments carry different modulation vectors.

``[txt + img | depth]`` is one sequence for attention but two for modulation. Each segment's vectors are read as
they are, (B, C), and never expanded to one row per token.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from .choice import dispatch
from .drawing import Draw
from .registry import Call, Op, register_op
from .tracing import recorded

LAYER_NORM_EPS = 1e-6


class Modulation(NamedTuple):
    """Vectors of one adaLN step, each (B, C) or (1, C); the last layer has nothing to add to and no gate."""

    shift: Tensor
    scale: Tensor
    gate: Tensor | None = None


class Segment(NamedTuple):
    """``length`` consecutive tokens that share one modulation."""

    length: int
    modulation: Modulation


def adaln(x: Tensor, segments: Sequence[Segment]) -> Tensor:
    """``LayerNorm(x) * (1 + scale) + shift``, LayerNorm without affine parameters.

    Args:
        x: tokens, (B, L, C).
        segments: lengths sum to L.

    Returns:
        (B, L, C) in x's dtype.

    Raises:
        ValueError: the segments do not cover the sequence.
        BackEndUnavailable: a back end was asked for by name and cannot run.
    """
    lengths = _lengths(x, segments)
    shifts, scales = _vectors(x, [m.shift for _, m in segments]), _vectors(x, [m.scale for _, m in segments])
    return dispatch(ADALN, (x, *shifts, *scales), (x, lengths, shifts, scales), x.shape[2], _sizes(x, lengths))


def gated_residual(x: Tensor, y: Tensor, segments: Sequence[Segment], *, inplace: bool = False) -> Tensor:
    """``x + gate * y`` with each segment's own gate; x, y and the result are (B, L, C).

    Args:
        inplace: write the result over x; only where autograd does not record.

    Raises:
        ValueError: the segments do not cover the sequence, or have no gate.
        BackEndUnavailable: a back end was asked for by name and cannot run.
    """
    lengths, gates = _lengths(x, segments), _gates(x, segments)
    arguments = (x, y, lengths, gates, inplace)
    return dispatch(GATED_RESIDUAL, (x, y, *gates), arguments, x.shape[2], _sizes(x, lengths))


def gated_residual_adaln(
    x: Tensor, y: Tensor, segments: Sequence[Segment], following: Sequence[Modulation], *, inplace: bool = False
) -> tuple[Tensor, Tensor]:
    """Close one residual branch and open the next in a single pass over the tokens.

    Args:
        segments: lengths, and the gates of this branch.
        following: shift and scale of the next branch, one per segment.
        inplace: write the new x over the old one; only where autograd does not record.

    Returns:
        ``(x + gate * y, adaln(x + gate * y))``.

    Raises:
        ValueError: the segments do not cover the sequence, or have no gate.
        BackEndUnavailable: a back end was asked for by name and cannot run.
    """
    lengths, gates = _lengths(x, segments), _gates(x, segments)
    shifts, scales = _vectors(x, [m.shift for m in following]), _vectors(x, [m.scale for m in following])
    tensors = (x, y, *gates, *shifts, *scales)
    arguments = (x, y, lengths, gates, shifts, scales, inplace)
    return dispatch(GATED_RESIDUAL_ADALN, tensors, arguments, x.shape[2], _sizes(x, lengths))


def _lengths(x: Tensor, segments: Sequence[Segment]) -> list[int]:
    lengths = [segment.length for segment in segments]
    if sum(lengths) != x.shape[1]:
        raise ValueError(f"segments cover {sum(lengths)} tokens, the sequence has {x.shape[1]}")
    return lengths


def _sizes(x: Tensor, lengths: list[int]) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], len(lengths)


def _vectors(x: Tensor, vectors: Sequence[Tensor]) -> list[Tensor]:
    batch = x.shape[0]
    return [vector if vector.shape[0] == batch else vector.expand(batch, -1) for vector in vectors]


def _gates(x: Tensor, segments: Sequence[Segment]) -> list[Tensor]:
    gates = [segment.modulation.gate for segment in segments]
    present = [gate for gate in gates if gate is not None]
    if len(present) != len(gates):
        raise ValueError("this modulation has no gate, so it cannot close a residual branch")
    return _vectors(x, present)


def _reference_adaln(x: Tensor, lengths: list[int], shifts: list[Tensor], scales: list[Tensor]) -> Tensor:
    normed = layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)
    parts = zip(_split(normed, lengths), shifts, scales, strict=True)
    if recorded(x, *shifts, *scales):
        # Not addcmul: its gradients take a pass more.
        return _join([part * (1 + scale[:, None]) + shift[:, None] for part, shift, scale in parts])
    for part, shift, scale in parts:
        torch.addcmul(shift[:, None], part, 1 + scale[:, None], out=part)
    return normed


def reference_gated_residual(x: Tensor, y: Tensor, lengths: list[int], gates: list[Tensor], inplace: bool) -> Tensor:
    """Plain PyTorch, which back ends without a kernel of their own also use."""
    parts = zip(_split(x, lengths), _split(y, lengths), gates, strict=True)
    if not inplace:
        return _join([part + gate[:, None] * branch for part, branch, gate in parts])
    for part, branch, gate in parts:
        part.addcmul_(gate[:, None], branch)
    return x


def _reference_gated_residual_adaln(
    x: Tensor,
    y: Tensor,
    lengths: list[int],
    gates: list[Tensor],
    shifts: list[Tensor],
    scales: list[Tensor],
    inplace: bool,
) -> tuple[Tensor, Tensor]:
    x = reference_gated_residual(x, y, lengths, gates, inplace)
    return x, _reference_adaln(x, lengths, shifts, scales)


def _split(x: Tensor, lengths: list[int]) -> Sequence[Tensor]:
    """Parts of the sequence; of a single one autograd knows nothing and copies nothing."""
    return (x,) if len(lengths) == 1 else x.split(lengths, dim=1)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _draw(call: Call) -> tuple[Tensor, Tensor, list[int], list[list[Tensor]]]:
    """x, y, lengths of the segments, and their gates, shifts and scales."""
    batch, length, segments = call.sizes
    draw = Draw(call)
    lengths = [length // segments] * (segments - 1)
    vectors = [[draw(batch, call.width) for _ in range(segments)] for _ in range(3)]
    return draw(batch, length, call.width), draw(batch, length, call.width), [*lengths, length - sum(lengths)], vectors


def _draw_adaln(call: Call) -> tuple:
    x, _, lengths, (_, shifts, scales) = _draw(call)
    return x, lengths, shifts, scales


def _draw_gated_residual(call: Call) -> tuple:
    x, y, lengths, (gates, _, _) = _draw(call)
    return x, y, lengths, gates, False


def _draw_gated_residual_adaln(call: Call) -> tuple:
    x, y, lengths, vectors = _draw(call)
    return x, y, lengths, *vectors, False


_SIZES = ("batch", "tokens", "segments")
_TOKENS, _VECTOR = "B L C", "B C"

ADALN = register_op(
    Op(
        "adaln",
        {"x": _TOKENS, "shift": _VECTOR, "scale": _VECTOR, "return": _TOKENS},
        "channels",
        _SIZES,
        _draw_adaln,
    ),
    _reference_adaln,
)
GATED_RESIDUAL = register_op(
    Op(
        "gated_residual",
        {"x": _TOKENS, "y": _TOKENS, "gate": _VECTOR, "return": _TOKENS},
        "channels",
        _SIZES,
        _draw_gated_residual,
    ),
    reference_gated_residual,
)
GATED_RESIDUAL_ADALN = register_op(
    Op(
        "gated_residual_adaln",
        {"x": _TOKENS, "y": _TOKENS, "gate": _VECTOR, "shift": _VECTOR, "scale": _VECTOR, "return": _TOKENS},
        "channels",
        _SIZES,
        _draw_gated_residual_adaln,
    ),
    _reference_gated_residual_adaln,
)
