"""What an error of a layer's weights costs: decomposition and rounding that keep it low where the layer works.

An error E of a weight changes the layer's output by E x. With the mean second moment C of the inputs x and the
sensitivity g of the results to each output, it costs ``sum_i g_i (E C E^T)_ii``. With any root L of C = L L^T that is
the squared norm of ``diag(g)^(1/2) E L``, whose largest singular components are therefore the best ones of a rank, as
in ASVD (Yuan et al., arXiv 2312.05821) and SVD-LLM (Wang et al., arXiv 2403.07378).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..weights.quantization import FP8_MAX, quantize_fp8

#: The largest value lies so far below the largest 8-bit float, as feedback may make values grow. Floats lose nothing.
_HEADROOM = 2.0
#: Of the mean eigenvalue, or the mean sensitivity: added to all, so that nothing is free that was not seen.
_FLOOR = 1e-3
#: Columns whose errors are fed back together, as in GPTQ.
_BLOCK = 128


@dataclass(frozen=True)
class ErrorMetric:
    """What an error of one layer's weights (out, in) costs.

    Attributes:
        inputs: mean second moment of the layer's inputs, (in, in) float32.
        outputs: how much a result changes with each output, (out,) float32: the mean square of its derivative.
    """

    inputs: Tensor
    outputs: Tensor

    @cached_property
    def moment(self) -> Tensor:
        """``inputs`` in float64 with the floor, so that it has an inverse."""
        moment = self.inputs.double()
        return moment + torch.eye(len(moment), device=moment.device) * moment.diagonal().mean() * _FLOOR

    @cached_property
    def root(self) -> Tensor:
        """Lower triangular L with L L^T = ``moment``, float32."""
        return torch.linalg.cholesky(self.moment).float()

    @cached_property
    def scales(self) -> Tensor:
        """Roots of ``outputs`` with their floor, (out, 1)."""
        return (self.outputs + self.outputs.mean() * _FLOOR).sqrt()[:, None]

    def weigh(self, error: Tensor) -> Tensor:
        """A matrix whose squared norm is what the error (out, in) costs."""
        return self.scales * error @ self.root

    def times(self, factor: float) -> ErrorMetric:
        """The metric in which everything costs ``factor`` times as much."""
        return ErrorMetric(self.inputs, self.outputs * factor)


def spectrum(difference: Tensor, metric: ErrorMetric | None) -> Tensor:
    """Singular values of a difference in its metric, descending, float64; their squares are what components are worth.

    Without a metric it is the squared difference.
    """
    return torch.linalg.svdvals(difference if metric is None else metric.weigh(difference)).double().cpu()


def components(difference: Tensor, metric: ErrorMetric | None, rank: int) -> tuple[Tensor, Tensor]:
    """(down, up), (rank, in) and (out, rank): the product ``up @ down`` of this rank that costs the least error."""
    weighed = difference if metric is None else metric.weigh(difference)
    left, singular, right = torch.linalg.svd(weighed, full_matrices=False)
    # Both halves get the root of the singular values, and so values of one order of magnitude.
    root = singular[:rank].sqrt()
    down, up = root[:, None] * right[:rank], left[:, :rank] * root
    if metric is not None:
        down = torch.linalg.solve_triangular(metric.root, down, upper=False, left=False)
        up = up / metric.scales
    return down, up


@dataclass(frozen=True)
class Stored:
    """Values as a file holds them, and the scale that gives back the given ones."""

    values: Tensor
    scale: float

    @property
    def restored(self) -> Tensor:
        return self.values.float() * self.scale


def stored_pair(difference: Tensor, metric: ErrorMetric | None, rank: int, dtype: torch.dtype) -> tuple[Stored, Stored]:
    """:func:`components` as stored. With a metric the upper half makes up for what rounding the lower one has cost."""
    down, up = components(difference, metric, rank)
    if metric is None or dtype != torch.float8_e4m3fn:
        return _nearest(down, dtype), _nearest(up, dtype)
    lower = _with_feedback(down, metric.moment)
    seen = lower.restored.double()
    moment = seen @ metric.moment @ seen.T
    up = torch.linalg.solve(moment, seen @ metric.moment @ difference.double().T).T.float()
    return lower, _with_feedback(up, moment)


def stored_whole(difference: Tensor, metric: ErrorMetric | None, dtype: torch.dtype) -> Stored:
    """All of a difference as stored."""
    if metric is None or dtype != torch.float8_e4m3fn:
        return _nearest(difference, dtype)
    return _with_feedback(difference, metric.moment)


def _nearest(values: Tensor, dtype: torch.dtype) -> Stored:
    if dtype != torch.float8_e4m3fn:
        return Stored(values.to(dtype), 1.0)
    rounded = quantize_fp8(values)
    return Stored(rounded.values, float(rounded.scale))


def _with_feedback(values: Tensor, moment: Tensor) -> Stored:
    """8-bit floats whose errors cancel in the outputs: each column takes up what rounding those before it has cost.

    GPTQ (Frantar et al., arXiv 2210.17323), for inputs of the second moment ``moment``, (in, in) float64.
    """
    scale = float(values.abs().max().clamp(min=1e-30)) * _HEADROOM / FP8_MAX
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    rest = values / scale
    rounded = torch.empty_like(rest, dtype=torch.float8_e4m3fn)
    for start in range(0, rest.shape[1], _BLOCK):
        stop = min(start + _BLOCK, rest.shape[1])
        errors = torch.zeros_like(rest[:, start:stop])
        for column in range(start, stop):
            nearest = rest[:, column].clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
            rounded[:, column] = nearest
            error = (rest[:, column] - nearest.float()) / factor[column, column]
            rest[:, column + 1 : stop] -= error[:, None] * factor[column, column + 1 : stop]
            errors[:, column - start] = error
        rest[:, stop:] -= errors @ factor[start:stop, stop:]
    return Stored(rounded, scale)
