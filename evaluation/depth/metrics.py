"""Measures of aligned depth (Eigen et al., arXiv 1406.2283, and KITTI's), a picture at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

#: What MoGe adds to the truth that it divides by.
MOGE_EPSILON = 1e-6

#: Logarithms of what is not positive are taken here.
_LEAST_DEPTH = 1e-6

_BLOCK = 1 << 14

#: Names of the measures of `depth_errors`, in the order of the report.
DEPTH_MEASURES = (
    "absrel",
    "sqrel",
    "delta1",
    "delta2",
    "delta3",
    "rmse",
    "rmse_log",
    "silog",
    "log10",
    "irmse",
)


def blocks(count: int) -> Iterator[slice]:
    """Pixels in parts that stay in the processor's cache."""
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))


def _as_it_is(prediction: np.ndarray) -> np.ndarray:
    return prediction.astype(np.float64, copy=False)


def depth_errors(aligned: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Errors over the pixels that count.

    Args:
        aligned: (H, W) aligned prediction, NaN where there is none: such a pixel counts as an error of 1 in AbsRel and
            as a miss in the deltas, since leaving pixels out must not pay; the others are means over predicted pixels.
        truth: (H, W), positive in the mask.
        mask: (H, W) bool.

    Returns:
        `DEPTH_MEASURES` by name. AbsRel and SqRel are mean(|p - g| / g) and mean((p - g)^2 / g), delta_k the share of
        max(p / g, g / p) < 1.25^k, SILog 100 sqrt(mean d^2 - mean(d)^2) of d = ln p - ln g, log10 the mean of
        |log10 p - log10 g|, iRMSE the RMSE of 1 / p.
    """
    return pixel_errors(aligned[mask], truth[mask])


def pixel_errors(
    prediction: np.ndarray,
    truth: np.ndarray,
    epsilon: float = 0.0,
    *,
    negative_hits: bool = False,
    aligned: Callable[[np.ndarray], np.ndarray] = _as_it_is,
) -> dict[str, float]:
    """`depth_errors` of the pixels (N,) that count.

    Args:
        prediction, truth: of these pixels.
        epsilon: added to the truth that AbsRel divides by; `MOGE_EPSILON` for MoGe.
        negative_hits: count depth that is not positive as a hit of the deltas, since its ratios are below any limit, as
            MoGe's do; else it is a miss.
        aligned: makes float64 depth of predictions, pixel by pixel.
    """
    count, predicted, sums = len(prediction), 0, np.zeros(10)
    for block in blocks(count):
        p, g = aligned(prediction[block]), truth[block].astype(np.float64, copy=False)
        known = np.isfinite(p)
        if not known.all():
            p, g = p[known], g[known]
        if len(p):
            predicted += len(p)
            sums += _sums(p, g, epsilon, negative_hits)
    within = sums[:3] / count
    relative, relative_square, square, log, log_square, log_absolute, inverse_square = sums[3:] / max(predicted, 1)
    return {
        "absrel": float(relative * predicted + count - predicted) / count,
        "sqrel": float(relative_square),
        **{f"delta{k}": float(share) for k, share in enumerate(within, 1)},
        "rmse": float(square**0.5),
        "rmse_log": float(log_square**0.5),
        "silog": 100 * float(max(log_square - log**2, 0.0)) ** 0.5,
        "log10": float(log_absolute / np.log(10)),
        "irmse": float(inverse_square**0.5),
    }


def _sums(p: np.ndarray, g: np.ndarray, epsilon: float, negative_hits: bool) -> list[float]:
    """Sums over pixels (N,), with d = ln p - ln g.

    Hits of delta1 to delta3, |p - g| / g, (p - g)^2 / g, (p - g)^2, d, d^2, |d|, (1 / p - 1 / g)^2.
    """
    # In place where it can be: memory that is new to the process costs more than the arithmetic.
    difference, ratio, inverse = p - g, p / g, p * g
    if (least := p.min()) < _LEAST_DEPTH:
        positive = np.maximum(p, _LEAST_DEPTH)
        logs = np.log(positive / g)
        np.divide(positive - g, positive * g, out=inverse)
    else:
        logs = np.log(ratio)
        np.divide(difference, inverse, out=inverse)
    with np.errstate(divide="ignore"):
        other = 1 / ratio
    np.maximum(ratio, other, out=ratio)
    if not negative_hits and least <= 0:
        ratio[p <= 0] = np.inf
    square = float(difference @ difference)
    absolute = np.abs(difference, out=difference)
    share = np.divide(absolute, g, out=other)
    relative_square = float(absolute @ share)
    if epsilon:
        np.divide(absolute, g + epsilon, out=share)
    log, log_square = float(logs.sum()), float(logs @ logs)
    return [
        *(float(np.count_nonzero(ratio < 1.25**k)) for k in (1, 2, 3)),
        float(share.sum()),
        relative_square,
        square,
        log,
        log_square,
        float(np.abs(logs, out=logs).sum()),
        float(inverse @ inverse),
    ]
