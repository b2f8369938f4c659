"""Measures of aligned depth (Eigen et al., arXiv 1406.2283, and KITTI's), a picture at a time."""

from __future__ import annotations

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


def depth_errors(
    aligned: np.ndarray, truth: np.ndarray, mask: np.ndarray, epsilon: float = 0.0, *, negative_hits: bool = False
) -> dict[str, float]:
    """Errors over the pixels that count.

    Args:
        aligned: (H, W) aligned prediction, NaN where there is none: such a pixel counts as an error of 1 in AbsRel and
            as a miss in the deltas, since leaving pixels out must not pay; the others are means over predicted pixels.
        truth: (H, W), positive in the mask.
        mask: (H, W) bool.
        epsilon: added to the truth that AbsRel divides by; `MOGE_EPSILON` for MoGe.
        negative_hits: count depth that is not positive as a hit of the deltas, since its ratios are below any limit, as
            MoGe's do; else it is a miss.

    Returns:
        `DEPTH_MEASURES` by name. AbsRel and SqRel are mean(|p - g| / g) and mean((p - g)^2 / g), delta_k the share of
        max(p / g, g / p) < 1.25^k, SILog 100 sqrt(mean d^2 - mean(d)^2) of d = ln p - ln g, log10 the mean of
        |log10 p - log10 g|, iRMSE the RMSE of 1 / p.
    """
    return pixel_errors(aligned[mask], truth[mask], epsilon, negative_hits=negative_hits)


def pixel_errors(
    aligned: np.ndarray, truth: np.ndarray, epsilon: float = 0.0, *, negative_hits: bool = False
) -> dict[str, float]:
    """`depth_errors` of the pixels (N,) that count."""
    p, g = (values.astype(np.float64, copy=False) for values in (aligned, truth))
    known = np.isfinite(p)
    count, predicted = len(p), int(np.count_nonzero(known))
    if predicted < count:
        p, g = p[known], g[known]
    # In blocks, which stay in the processor's cache.
    blocks = (slice(start, start + _BLOCK) for start in range(0, predicted, _BLOCK))
    sums = np.sum([_sums(p[block], g[block], epsilon, negative_hits) for block in blocks], axis=0)
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
    difference = p - g
    ratio = p / g
    if (least := p.min()) < _LEAST_DEPTH:
        positive = np.maximum(p, _LEAST_DEPTH)
        logs, inverse = np.log(positive / g), (positive - g) / (positive * g)
    else:
        logs, inverse = np.log(ratio), difference / (p * g)
    with np.errstate(divide="ignore"):
        ratio = np.maximum(ratio, 1 / ratio)
    if not negative_hits and least <= 0:
        ratio[p <= 0] = np.inf
    absolute = np.abs(difference)
    return [
        *(float(np.count_nonzero(ratio < 1.25**k)) for k in (1, 2, 3)),
        float(np.sum(absolute / (g + epsilon))),
        float(absolute @ (absolute / g)),
        float(difference @ difference),
        float(np.sum(logs)),
        float(logs @ logs),
        float(np.sum(np.abs(logs))),
        float(inverse @ inverse),
    ]
