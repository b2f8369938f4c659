"""Bringing a prediction to the scale (and shift) of the truth, as each of the public harnesses defines it.

Every function takes a prediction beside its truth, computes in float64 and returns what brings the one to the other,
pixel by pixel. Where the harnesses differ, so do the numbers: results name their alignment.

Sources: ``moge/test/metrics.py`` and ``moge/utils/alignment.py`` of microsoft/MoGe; ``src/util/alignment.py`` and
``script/depth/eval.py`` of prs-eth/Marigold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import interpolate

from .least_deviations import fit_scale, fit_scale_and_shift_as_moge
from .metrics import blocks
from .pair import Pair, inverted

#: Marigold's floors of a disparity before it is inverted, and of every aligned depth.
_LEAST_DISPARITY, _LEAST_DEPTH = 1e-3, 1e-6

Kind = Literal["depth", "disparity"]


@dataclass(frozen=True)
class Limits:
    """What a data set says about aligning: Marigold's clip of the aligned depth, and its largest size of a fit.

    Attributes:
        low, high: aligned depth is clipped to them.
        fit_side: least squares sees a map thinned to this, as Marigold does for ETH3D; None: whole maps.
    """

    low: float = 0.0
    high: float = np.inf
    fit_side: int | None = None

    def describe(self) -> str:
        """The clip in words."""
        if self.low <= _LEAST_DEPTH and self.high == np.inf:
            return "not clipped"
        return f"clipped to {self.low:g} and more" if self.high == np.inf else f"clipped to {self.low:g}..{self.high:g}"


@dataclass(frozen=True)
class Fit:
    """What an alignment found: ``scale * prediction + shift`` is depth, or disparity.

    Attributes:
        scale, shift: of the prediction.
        least_disparity: disparity is not below it and then inverted; None: it is depth.
        limits: to which depth is clipped; None: it is not.
        of_inverse: they are of 1 / prediction.
    """

    scale: float = 1.0
    shift: float = 0.0
    least_disparity: float | None = None
    limits: Limits | None = None
    of_inverse: bool = False

    def __call__(self, prediction: np.ndarray) -> np.ndarray:
        """The aligned depth of predictions, float64."""
        depth = inverted(prediction) if self.of_inverse else prediction.astype(np.float64)
        depth *= self.scale
        depth += self.shift
        if self.least_disparity is not None:
            np.maximum(depth, self.least_disparity, out=depth)
            np.divide(1, depth, out=depth)
        if self.limits is not None:
            np.clip(depth, self.limits.low, self.limits.high, out=depth)
            np.maximum(depth, _LEAST_DEPTH, out=depth)
        return depth


def identity(pair: Pair, limits: Limits) -> Fit:
    """Metric depth as it is."""
    return Fit()


def median(pair: Pair, limits: Limits) -> Fit:
    """Scaled so that the median of truth / prediction is 1."""
    predicted, truth = pair.known
    return Fit(float(np.median(truth / predicted)))


def moge_scale(pair: Pair, limits: Limits) -> Fit:
    """MoGe's scale-invariant depth: least weighted deviations of ``s p`` on its samples, weight 1 / truth."""
    x, y = pair.samples
    return Fit(fit_scale(x, y, 1 / y))


def moge_affine_depth(pair: Pair, limits: Limits) -> Fit:
    """MoGe's affine-invariant depth ("ROE"): least weighted deviations of ``s p + t`` on its samples, unclipped."""
    x, y = pair.samples
    return Fit(*fit_scale_and_shift_as_moge(x, y, 1 / y))


def moge_affine_disparity(pair: Pair, limits: Limits) -> Fit:
    """MoGe's affine-invariant disparity: least squares on 1 / truth; not below the disparity of the farthest truth."""
    predicted, truth = pair.known
    disparity = 1 / truth
    return Fit(*least_squares(predicted, disparity), least_disparity=float(disparity.min()))


def marigold_least_square(pair: Pair, limits: Limits) -> Fit:
    """Marigold's least squares in depth, clipped to the data set's range."""
    thinned = _thinned(pair, pair.known_mask, limits.fit_side)
    return Fit(*least_squares(*thinned or pair.known), limits=limits)


def marigold_least_square_disparity(pair: Pair, limits: Limits) -> Fit:
    """Marigold's least squares in disparity, inverted and clipped to the data set's range."""
    used = pair.known_mask & (pair.truth > 0) & (pair.prediction > 0)
    if used.sum() < 2:
        raise ValueError("fewer than two pixels have both a truth and a positive disparity")
    predicted, truth = _thinned(pair, used, limits.fit_side) or (pair.prediction[used], pair.truth[used])
    scale, shift = least_squares(predicted.astype(np.float64), 1 / truth.astype(np.float64))
    return Fit(scale, shift, _LEAST_DISPARITY, limits)


def least_squares(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The ``s`` and ``t`` that minimize the sum of ``(s x + t - y)^2``; the shortest (s, t) where all x are equal.

    Args:
        x, y: (N,) float64.
    """
    middle_x, middle_y = float(x.mean()), float(y.mean())
    spread = along = 0.0
    for block in blocks(len(x)):
        centered = x[block] - middle_x
        spread += float(centered @ centered)
        along += float(centered @ (y[block] - middle_y))
    if spread <= np.finfo(np.float64).eps ** 2 * len(x) * middle_x**2:
        scale = middle_x * middle_y / (middle_x**2 + 1)
        return scale, middle_y / (middle_x**2 + 1)
    scale = along / spread
    return scale, middle_y - scale * middle_x


def _thinned(pair: Pair, mask: np.ndarray, side: int | None) -> tuple[np.ndarray, np.ndarray] | None:
    """The pixels (N,) float64 of prediction and truth that are fitted; None where that is all of the mask.

    Marigold thins a large map by PyTorch's nearest `Upsample` on a tensor (1, H, W). That is a batch of one signal with
    H channels to it: columns are left out, rows are not. Which columns is rounded in float32, the dtype of its maps.
    """
    if side is None or max(mask.shape) <= side:
        return None
    columns = torch.arange(mask.shape[1], dtype=torch.float32)[None, None]
    kept = interpolate(columns, scale_factor=float(side / max(mask.shape)), mode="nearest")[0, 0].long().numpy()
    mask = mask[:, kept]
    predicted, truth = (map_[:, kept][mask].astype(np.float64) for map_ in (pair.prediction, pair.truth))
    return predicted, truth


@dataclass(frozen=True)
class Alignment:
    """An alignment by name.

    Attributes:
        fit: (pair, limits of the data set) -> what aligns it.
        wants: what its prediction is: depth, or disparity (1 / depth, up to what the fit finds).
        formula: what is minimized, for reports.
        clips: whether the result is clipped to the limits of the data set.
    """

    fit: Callable[[Pair, Limits], Fit]
    wants: Kind
    formula: str
    clips: bool = False


ALIGNMENTS: dict[str, Alignment] = {
    "none": Alignment(identity, "depth", "metric depth as it is"),
    "median": Alignment(median, "depth", "s = median(g / p)"),
    "scale": Alignment(moge_scale, "depth", "min_s sum |s p - g| / g on MoGe's 64 x 64 samples"),
    "affine-depth": Alignment(moge_affine_depth, "depth", "min_{s,t} sum |s p + t - g| / g on MoGe's 64 x 64 samples"),
    "affine-disparity": Alignment(
        moge_affine_disparity, "disparity", "least squares of s p + t on 1 / g, floored at 1 / max g, inverted (MoGe)"
    ),
    "least-square": Alignment(marigold_least_square, "depth", "least squares of s p + t on g (Marigold)", clips=True),
    "least-square-disparity": Alignment(
        marigold_least_square_disparity,
        "disparity",
        "least squares of s p + t on 1 / g, inverted (Marigold)",
        clips=True,
    ),
}


#: Alignments in depth that take any scale and shift away.
AFFINE_ALIGNMENTS = ("affine-depth", "least-square")


def formula(name: str, limits: Limits) -> str:
    """What an alignment minimizes, in words, on a data set of these limits."""
    alignment = ALIGNMENTS[name]
    return f"{alignment.formula}, {limits.describe()}" if alignment.clips else alignment.formula


def fit(name: str, pair: Pair, limits: Limits, kind: Kind) -> Fit:
    """What brings predictions to the truth.

    Args:
        name: of `ALIGNMENTS`.
        pair: prediction and truth; a pixel without a prediction is not fitted.
        limits: of the data set.
        kind: whether larger numbers of the prediction are farther ("depth") or nearer ("disparity").

    Raises:
        ValueError: an alignment in depth for predicted disparity, or fewer than two pixels to fit.
    """
    alignment = ALIGNMENTS[name]
    if alignment.wants == "depth" and kind == "disparity":
        raise ValueError(f"the alignment {name} is for depth, and the prediction is disparity")
    of_inverse = alignment.wants != kind
    if of_inverse:
        pair = pair.inverse
    if len(pair.predicted) - pair.missing < 2:
        raise ValueError("fewer than two pixels have both a truth and a prediction")
    return replace(alignment.fit(pair, limits), of_inverse=of_inverse)


def align(
    name: str, prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray, limits: Limits, kind: Kind
) -> np.ndarray:
    """Depth (H, W) float64, aligned to the truth; see `fit`.

    Args:
        name: of `ALIGNMENTS`.
        prediction: (H, W), NaN where there is none.
        truth: (H, W), read where the mask is set.
        mask: (H, W) bool, the pixels that count.
        limits: of the data set.
        kind: of the prediction.
    """
    return fit(name, Pair(prediction, truth, mask), limits, kind)(prediction)
