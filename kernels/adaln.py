"""Adaptive LayerNorm over a sequence whose segments carry different modulation vectors.

``[txt + img | depth]`` is one sequence for attention but two for modulation. Each segment's vectors are read as
they are, (B, C), and never expanded to one row a token.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from .dispatch import on_triton, recorded

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
    """
    lengths = _lengths(x, segments)
    shifts, scales = _vectors(x, [m.shift for _, m in segments]), _vectors(x, [m.scale for _, m in segments])
    if not on_triton("adaln", x.shape[2], x, *shifts, *scales):
        return _adaln(x, lengths, shifts, scales)
    if recorded(x, *shifts, *scales):
        from . import adaln_ops

        return adaln_ops.adaln(x, lengths, shifts, scales)
    from .triton.adaln import forward

    h = torch.empty_like(x, memory_format=torch.contiguous_format)
    forward(x, None, None, h, lengths, (), shifts, scales, LAYER_NORM_EPS)
    return h


def gated_residual(x: Tensor, y: Tensor, segments: Sequence[Segment], *, inplace: bool = False) -> Tensor:
    """``x + gate * y`` with each segment's own gate; x, y and the result are (B, L, C).

    Args:
        inplace: write the result over x; only where autograd does not record.

    Raises:
        ValueError: the segments do not cover the sequence, or have no gate.
    """
    lengths, gates = _lengths(x, segments), _gates(x, segments)
    if not on_triton("gated_residual", x.shape[2], x, y, *gates):
        return _gated_residual(x, y, lengths, gates, inplace)
    if recorded(x, y, *gates):
        from . import adaln_ops

        return adaln_ops.gated_residual(x, y, lengths, gates)
    from .triton.adaln import forward

    z = x if inplace else torch.empty_like(x, memory_format=torch.contiguous_format)
    forward(x, y, z, None, lengths, gates, (), (), LAYER_NORM_EPS)
    return z


def gated_residual_adaln(
    x: Tensor, y: Tensor, segments: Sequence[Segment], following: Sequence[Modulation], *, inplace: bool = False
) -> tuple[Tensor, Tensor]:
    """Close one residual branch and open the next in a single pass over the tokens.

    Args:
        segments: lengths, and the gates of this branch.
        following: shift and scale of the next branch, one a segment.
        inplace: write the new x over the old one; only where autograd does not record.

    Returns:
        ``(x + gate * y, adaln(x + gate * y))``.

    Raises:
        ValueError: the segments do not cover the sequence, or have no gate.
    """
    lengths, gates = _lengths(x, segments), _gates(x, segments)
    shifts, scales = _vectors(x, [m.shift for m in following]), _vectors(x, [m.scale for m in following])
    if not on_triton("gated_residual_adaln", x.shape[2], x, y, *gates, *shifts, *scales):
        x = _gated_residual(x, y, lengths, gates, inplace)
        return x, _adaln(x, lengths, shifts, scales)
    if recorded(x, y, *gates, *shifts, *scales):
        from . import adaln_ops

        return adaln_ops.gated_residual_adaln(x, y, lengths, gates, shifts, scales)
    from .triton.adaln import forward

    z = x if inplace else torch.empty_like(x, memory_format=torch.contiguous_format)
    h = torch.empty_like(x, memory_format=torch.contiguous_format)
    forward(x, y, z, h, lengths, gates, shifts, scales, LAYER_NORM_EPS)
    return z, h


def _lengths(x: Tensor, segments: Sequence[Segment]) -> list[int]:
    lengths = [segment.length for segment in segments]
    if sum(lengths) != x.shape[1]:
        raise ValueError(f"segments cover {sum(lengths)} tokens, the sequence has {x.shape[1]}")
    return lengths


def _vectors(x: Tensor, vectors: Sequence[Tensor]) -> list[Tensor]:
    batch = x.shape[0]
    return [vector if vector.shape[0] == batch else vector.expand(batch, -1) for vector in vectors]


def _gates(x: Tensor, segments: Sequence[Segment]) -> list[Tensor]:
    gates = [segment.modulation.gate for segment in segments]
    present = [gate for gate in gates if gate is not None]
    if len(present) != len(gates):
        raise ValueError("this modulation has no gate, so it cannot close a residual branch")
    return _vectors(x, present)


def _adaln(x: Tensor, lengths: list[int], shifts: list[Tensor], scales: list[Tensor]) -> Tensor:
    normed = layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)
    parts = zip(_split(normed, lengths), shifts, scales, strict=True)
    if recorded(x, *shifts, *scales):
        # Not addcmul: its gradients take a pass more.
        return _join([part * (1 + scale[:, None]) + shift[:, None] for part, shift, scale in parts])
    for part, shift, scale in parts:
        torch.addcmul(shift[:, None], part, 1 + scale[:, None], out=part)
    return normed


def _gated_residual(x: Tensor, y: Tensor, lengths: list[int], gates: list[Tensor], inplace: bool) -> Tensor:
    parts = zip(_split(x, lengths), _split(y, lengths), gates, strict=True)
    if not inplace:
        return _join([part + gate[:, None] * branch for part, branch, gate in parts])
    for part, branch, gate in parts:
        part.addcmul_(gate[:, None], branch)
    return x


def _split(x: Tensor, lengths: list[int]) -> Sequence[Tensor]:
    """Parts of the sequence; of a single one autograd knows nothing and copies nothing."""
    return (x,) if len(lengths) == 1 else x.split(lengths, dim=1)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
