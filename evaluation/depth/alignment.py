"""Bringing a prediction to the scale (and shift) of the truth, as each of the public harnesses defines it.

Every function takes the prediction and the truth as maps (H, W) and the mask of the pixels that count, computes in
float64 and returns the aligned depth. Where the harnesses differ, so do the numbers: results name their alignment.

Sources: ``moge/test/metrics.py`` and ``moge/utils/alignment.py`` of microsoft/MoGe; ``src/util/alignment.py`` and
``script/depth/eval.py`` of prs-eth/Marigold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import interpolate

from .least_deviations import fit_scale, fit_scale_and_shift_as_moge
from .samples import nearest_samples

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


Align = Callable[[np.ndarray, np.ndarray, np.ndarray, Limits], np.ndarray]


def identity(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray, limits: Limits) -> np.ndarray:
    """Metric depth as it is."""
    return prediction


def median(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray, limits: Limits) -> np.ndarray:
    """Scaled so that the median of truth / prediction is 1."""
    return prediction * np.median(truth[mask] / prediction[mask])


def _samples(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`nearest_samples`, kept for the next alignment of the picture."""
    return _samples_of(mask.tobytes(), mask.shape)


@lru_cache(maxsize=1)
def _samples_of(pixels: bytes, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return nearest_samples(np.frombuffer(pixels, bool).reshape(shape))


def moge_scale(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray, limits: Limits) -> np.ndarray:
    """MoGe's scale-invariant depth: least weighted deviations of ``s p`` on its samples, weight 1 / truth."""
    rows, columns = _samples(mask)
    x, y = prediction[rows, columns], truth[rows, columns]
    return prediction * fit_scale(x, y, 1 / y)


def moge_affine_depth(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray, limits: Limits) -> np.ndarray:
    """MoGe's affine-invariant depth ("ROE"): least weighted deviations of ``s p + t`` on its samples, unclipped."""
    rows, columns = _samples(mask)
    x, y = prediction[rows, columns], truth[rows, columns]
    scale, shift = fit_scale_and_shift_as_moge(x, y, 1 / y)
    return prediction * scale + shift


def moge_affine_disparity(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray, limits: Limits) -> np.ndarray:
    """MoGe's affine-invariant disparity: least squares on 1 / truth; not below the disparity of the farthest truth."""
    disparity = 1 / truth[mask]
    scale, shift = least_squares(prediction[mask], disparity)
    return 1 / np.maximum(prediction * scale + shift, disparity.min())


def marigold_least_square(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray, limits: Limits) -> np.ndarray:
    """Marigold's least squares in depth, clipped to the data set's range."""
    scale, shift = least_squares(*_thinned(prediction, truth, mask, limits.fit_side))
    return _clipped(prediction * scale + shift, limits)


def marigold_least_square_disparity(
    prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray, limits: Limits
) -> np.ndarray:
    """Marigold's least squares in disparity, inverted and clipped to the data set's range."""
    known = truth > 0
    disparity = np.divide(1.0, truth, out=np.zeros_like(truth), where=known)
    used = mask & known & (prediction > 0)
    if used.sum() < 2:
        raise ValueError("fewer than two pixels have both a truth and a positive disparity")
    scale, shift = least_squares(*_thinned(prediction, disparity, used, limits.fit_side))
    return _clipped(1 / np.maximum(prediction * scale + shift, _LEAST_DISPARITY), limits)


def least_squares(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The ``s`` and ``t`` that minimize the sum of ``(s x + t - y)^2``; the shortest (s, t) where all x are equal."""
    middle_x, middle_y = float(x.mean()), float(y.mean())
    centered = x - middle_x
    spread = float(centered @ centered)
    if spread <= np.finfo(np.float64).eps ** 2 * len(x) * middle_x**2:
        scale = middle_x * middle_y / (middle_x**2 + 1)
        return scale, middle_y / (middle_x**2 + 1)
    scale = float(centered @ (y - middle_y)) / spread
    return scale, middle_y - scale * middle_x


def _thinned(
    prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray, side: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels (N,) of prediction and truth that are fitted.

    Marigold thins a large map by PyTorch's nearest `Upsample` on a tensor (1, H, W). That is a batch of one signal with
    H channels to it: columns are left out, rows are not. Which columns is rounded in float32, the dtype of its maps.
    """
    if side is None or max(mask.shape) <= side:
        return prediction[mask], truth[mask]
    columns = torch.arange(mask.shape[1], dtype=torch.float32)[None, None]
    kept = interpolate(columns, scale_factor=float(side / max(mask.shape)), mode="nearest")[0, 0].long().numpy()
    mask = mask[:, kept]
    return prediction[:, kept][mask], truth[:, kept][mask]


def _clipped(depth: np.ndarray, limits: Limits) -> np.ndarray:
    return np.clip(np.clip(depth, limits.low, limits.high), _LEAST_DEPTH, None)


@dataclass(frozen=True)
class Alignment:
    """An alignment by name.

    Attributes:
        apply: (prediction, truth, mask, limits) -> aligned depth, all (H, W) float64.
        wants: what its prediction is: depth, or disparity (1 / depth, up to what the fit finds).
        formula: what is minimized, for reports.
        clips: whether the result is clipped to the limits of the data set.
    """

    apply: Align
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


def align(
    name: str, prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray, limits: Limits, kind: Kind
) -> np.ndarray:
    """Depth (H, W) float64, aligned to the truth.

    Args:
        name: of `ALIGNMENTS`.
        prediction: (H, W), NaN where there is none.
        truth: (H, W), read where the mask is set.
        mask: (H, W) bool, the pixels that count; one without a prediction is not fitted.
        limits: of the data set.
        kind: whether larger numbers of the prediction are farther ("depth") or nearer ("disparity").

    Raises:
        ValueError: an alignment in depth for predicted disparity, or fewer than two pixels to fit.
    """
    alignment = ALIGNMENTS[name]
    if alignment.wants == "depth" and kind == "disparity":
        raise ValueError(f"the alignment {name} is for depth, and the prediction is disparity")
    prediction = prediction.astype(np.float64, copy=False)
    if alignment.wants != kind:
        prediction = 1 / np.where(prediction == 0, np.nan, prediction)
    mask = mask & np.isfinite(prediction)
    if mask.sum() < 2:
        raise ValueError("fewer than two pixels have both a truth and a prediction")
    return alignment.apply(prediction, truth.astype(np.float64, copy=False), mask, limits)
