"""Adaptive LayerNorm over a sequence whose segments carry different modulation vectors.

``[txt + img | depth]`` is one sequence for attention but two for modulation. Each segment's vectors are read as
they are, (B, C), and never expanded to one row a token.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

LAYER_NORM_EPS = 1e-6


class Modulation(NamedTuple):
    """Vectors of one adaLN step, each (B, C); the last layer has nothing to add to and no gate."""

    shift: Tensor
    scale: Tensor
    gate: Tensor | None = None


class Segment(NamedTuple):
    """``length`` consecutive tokens that share one modulation."""

    length: int
    modulation: Modulation


def _per_segment(x: Tensor, segments: Sequence[Segment]) -> list[Tensor]:
    total = sum(segment.length for segment in segments)
    if total != x.shape[1]:
        raise ValueError(f"segments cover {total} tokens, the sequence has {x.shape[1]}")
    return list(x.split([segment.length for segment in segments], dim=1))


def _gate(modulation: Modulation) -> Tensor:
    if modulation.gate is None:
        raise ValueError("this modulation has no gate, so it cannot close a residual branch")
    return modulation.gate


def adaln(x: Tensor, segments: Sequence[Segment]) -> Tensor:
    """``LayerNorm(x) * (1 + scale) + shift``, LayerNorm without affine parameters.

    Args:
        x: tokens, (B, L, C).
        segments: lengths sum to L.

    Returns:
        (B, L, C) in x's dtype.
    """
    normed = layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)
    parts = [
        torch.addcmul(m.shift[:, None], part, 1 + m.scale[:, None])
        for part, (_, m) in zip(_per_segment(normed, segments), segments, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def gated_residual(x: Tensor, y: Tensor, segments: Sequence[Segment]) -> Tensor:
    """``x + gate * y`` with each segment's own gate; x, y and the result are (B, L, C)."""
    parts = [
        torch.addcmul(part_x, _gate(m)[:, None], part_y)
        for part_x, part_y, (_, m) in zip(_per_segment(x, segments), _per_segment(y, segments), segments, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def gated_residual_adaln(
    x: Tensor, y: Tensor, segments: Sequence[Segment], next_segments: Sequence[Segment]
) -> tuple[Tensor, Tensor]:
    """Close one residual branch and open the next in a single pass over the tokens.

    Returns:
        ``(x + gate * y, adaln(x + gate * y))``: the gate is ``segments``', the shift and scale ``next_segments``'.
    """
    x = gated_residual(x, y, segments)
    return x, adaln(x, next_segments)
