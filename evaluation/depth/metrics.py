"""Measures of aligned depth (Eigen et al., arXiv 1406.2283, and KITTI's), a picture at a time."""

from __future__ import annotations

import numpy as np

#: What MoGe adds to the truth that it divides by.
MOGE_EPSILON = 1e-6

#: Logarithms of what is not positive are taken here.
_LEAST_DEPTH = 1e-6

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


def depth_errors(aligned: np.ndarray, truth: np.ndarray, mask: np.ndarray, epsilon: float = 0.0) -> dict[str, float]:
    """Errors over the pixels that count.

    Args:
        aligned: (H, W) aligned prediction, NaN where there is none: such a pixel counts as an error of 1 in AbsRel and
            as a miss in the deltas, since leaving pixels out must not pay; the others are means over predicted pixels.
        truth: (H, W), positive in the mask.
        mask: (H, W) bool.
        epsilon: added to the truth that AbsRel divides by; `MOGE_EPSILON` for MoGe.

    Returns:
        `DEPTH_MEASURES` by name. AbsRel and SqRel are mean(|p - g| / g) and mean((p - g)^2 / g), delta_k the share of
        max(p / g, g / p) < 1.25^k, SILog 100 sqrt(mean d^2 - mean(d)^2) of d = ln p - ln g, log10 the mean of
        |log10 p - log10 g|, iRMSE the RMSE of 1 / p.
    """
    p, g = aligned[mask].astype(np.float64), truth[mask].astype(np.float64)
    known = np.isfinite(p)
    count, missing = len(p), len(p) - int(known.sum())
    p, g = p[known], g[known]
    difference = np.abs(p - g)
    with np.errstate(divide="ignore"):
        ratio = np.maximum(p / g, g / p)
    logs = np.log(np.maximum(p, _LEAST_DEPTH)) - np.log(g)
    inverse = 1 / np.maximum(p, _LEAST_DEPTH) - 1 / g
    square = float(np.mean(logs**2))
    return {
        "absrel": (float(np.sum(difference / (g + epsilon))) + missing) / count,
        "sqrel": float(np.mean(difference**2 / g)),
        **{f"delta{k}": float(np.sum(ratio < 1.25**k)) / count for k in (1, 2, 3)},
        "rmse": float(np.sqrt(np.mean(difference**2))),
        "rmse_log": square**0.5,
        "silog": 100 * max(square - float(np.mean(logs)) ** 2, 0.0) ** 0.5,
        "log10": float(np.mean(np.abs(logs))) / float(np.log(10)),
        "irmse": float(np.sqrt(np.mean(inverse**2))),
    }
