"""From noise levels to the vectors that modulate every block (adaLN-Zero, Peebles & Xie, arXiv 2212.09748).

The conditioning vectors that this starts from, cross-stream mixing included, are made in :mod:`.transformer`, which
holds their weights.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ...kernels import Modulation
from .config import TIME_FREQUENCIES


class Modulations(NamedTuple):
    """Everything in a call that depends on its noise levels alone, R rows; one row may serve a whole batch.

    Each is what a modulation's Linear wrote, (R, count * C); None where the model, or the call, has no such part.
    ``t_rgb`` (R,) float32 is the noise level itself, where the model predicts clean latents.
    """

    txt: Tensor | None
    img: Tensor | None
    depth: Tensor | None
    single: Tensor
    single_depth: Tensor | None
    decoder: Tensor | None
    final: Tensor
    depth_final: Tensor | None
    t_rgb: Tensor | None = None

    def rows(self, start: int, stop: int) -> "Modulations":
        """Those of a part of the noise levels."""
        chosen = (None if vectors is None else vectors[start:stop] for vectors in self)
        return Modulations(*chosen)  # type: ignore[arg-type]  # None stays where None was


class BlockModulation(NamedTuple):
    """What one stream's attention and MLP in a double-stream block are modulated by."""

    attention: Modulation
    mlp: Modulation


def unpack_block(vectors: Tensor) -> BlockModulation:
    """(R, 6 C) -> two modulations of (R, C) vectors."""
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = vectors.chunk(6, dim=-1)
    return BlockModulation(Modulation(shift, scale, gate), Modulation(mlp_shift, mlp_scale, mlp_gate))


def unpack_single(vectors: Tensor) -> Modulation:
    """(R, 3 C) -> one modulation of (R, C) vectors."""
    return Modulation(*vectors.chunk(3, dim=-1))


def timestep_embedding(t: Tensor) -> Tensor:
    """Sinusoidal embedding of a noise level, (R,) -> (R, 256), cosines first.

    ``t * 1000`` is rounded to t's dtype on purpose: the released weights were trained with that rounding.
    """
    half = TIME_FREQUENCIES // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = (t * 1000.0)[:, None].float() * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1).to(t.dtype)


class TimeEmbedder(nn.Module):
    """(R, 256) sinusoids -> (R, C)."""

    def __init__(self, size: int, *, operations: Any, device: Any, dtype: Any) -> None:
        super().__init__()
        factory = {"bias": False, "device": device, "dtype": dtype}
        self.in_layer = operations.Linear(TIME_FREQUENCIES, size, **factory)
        self.out_layer = operations.Linear(size, size, **factory)

    def forward(self, sinusoid: Tensor) -> Tensor:
        return self.out_layer(silu(self.in_layer(sinusoid)))


class ModulationProjection(nn.Module):
    """(R, C) conditioning -> ``count`` vectors of C channels, packed in (R, count * C)."""

    def __init__(self, size: int, count: int, *, operations: Any, device: Any, dtype: Any) -> None:
        super().__init__()
        self.lin = operations.Linear(size, count * size, bias=False, device=device, dtype=dtype)

    def forward(self, vec: Tensor) -> Tensor:
        return self.lin(silu(vec))
