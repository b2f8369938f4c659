"""Exact weighted least absolute deviations: the robust fits that MoGe's evaluation aligns with.

The sum of ``w |s x + t - y|`` over samples is convex and piecewise linear in (s, t), and along the lines on which one
sample's error is zero it is a one-dimensional problem that a weighted median solves. Going from line to line ends in a
vertex from which no line leads down (Wesolowsky, 1981); that is the minimum which trying every sample as an anchor
finds, in a few dozen sorts instead of thousands.
"""

from __future__ import annotations

import numpy as np

#: An error below this share of the largest target is zero: the sample's line goes through the vertex.
_ON_LINE = 1e-11
#: A slope of the objective above minus this share of the weights is no descent.
_FLAT = 1e-10
#: Vertices that are visited at most; a fit of 4096 samples takes about 20.
_MOST_VERTICES = 10_000


def fit_scale(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """The ``s`` that minimizes the sum of ``weight |s x - y|``.

    Args:
        x, y, weight: (N,) float64; weights positive.

    Returns:
        The first of them where several are best; 0 where every x is 0.
    """
    index = _weighted_median(x, y, weight)
    return 0.0 if index is None else float(y[index] / x[index])


def fit_scale_and_shift(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """The ``s`` and ``t`` that minimize the sum of ``weight |s x + t - y|``.

    Args:
        x, y, weight: (N,) float64; weights positive.

    Returns:
        Scale and shift; a scale of 0 where all x are equal.
    """
    if np.ptp(x) == 0:
        return 0.0, fit_scale(np.ones_like(x), y, weight)
    centered, middle = x - x.mean(), y.mean()
    slope = float(centered @ (y - middle) / (centered @ centered))
    anchor: int | None = int(np.abs(centered * slope + middle - y).argmin())
    tolerance = _ON_LINE * max(float(np.abs(y).max()), np.finfo(np.float64).tiny)
    best = np.inf, slope, 0.0
    for _ in range(_MOST_VERTICES):
        if anchor is None:
            break
        other = _weighted_median(x - x[anchor], y - y[anchor], weight)
        if other is None:  # every sample that differs has the anchor's x: not after the first check
            break
        slope = float((y[other] - y[anchor]) / (x[other] - x[anchor]))
        shift = float(y[anchor] - slope * x[anchor])
        error = slope * x + shift - y
        loss = float(weight @ np.abs(error))
        if loss >= best[0]:
            break
        best = loss, slope, shift
        anchor = _steepest_line(x, error, weight, tolerance)
    return best[1], best[2]


def fit_scale_and_shift_as_moge(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """What MoGe's ``align_depth_affine`` gives: the same, except where several samples have one x.

    It tries every sample as the anchor of a line and compares their sums, and leaves out of an anchor's sum the samples
    whose x equals the anchor's. Such an anchor can therefore win although another line is better.

    Args:
        x, y, weight: (N,) float64; weights positive.
    """
    best = fit_scale_and_shift(x, y, weight)
    if np.ptp(x) == 0:
        return best
    minimum = least = float(weight @ np.abs(best[0] * x + best[1] - y))
    left_out = _left_out(x, y, weight)
    for anchor in np.argsort(-left_out, kind="stable"):
        if minimum - left_out[anchor] >= least:  # no whole sum is below the minimum, so that no further anchor can win
            break
        others = x != x[anchor]
        dx, dy, w = x[others] - x[anchor], y[others] - y[anchor], weight[others]
        scale = fit_scale(dx, dy, w)
        total = float(w @ np.abs(scale * dx - dy))
        if total < least:
            least, best = total, (scale, float(y[anchor] - scale * x[anchor]))
    return best


def _left_out(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """For each sample the sum of ``weight |y - its y|`` over the samples that have its x, (N,)."""
    _, group, count = np.unique(x, return_inverse=True, return_counts=True)
    sums = np.zeros(len(x))
    for number in np.flatnonzero(count > 1):
        members = np.flatnonzero(group == number)
        sums[members] = np.abs(y[members, None] - y[members]) @ weight[members]
    return sums


def _weighted_median(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> int | None:
    """Index of the sample whose ratio y / x is the median of all, weighted by ``weight |x|``; None without any x."""
    used = np.flatnonzero(x)
    if not used.size:
        return None
    if used.size < x.size:
        x, y, weight = x[used], y[used], weight[used]
    ratio = y / x
    order = np.argsort(ratio, kind="stable")
    mass = (weight * np.abs(x))[order].cumsum()
    return int(used[order[min(int(np.searchsorted(2 * mass, mass[-1])), len(order) - 1)]])


def _steepest_line(x: np.ndarray, error: np.ndarray, weight: np.ndarray, tolerance: float) -> int | None:
    """Of the lines through a vertex the one along which the objective falls fastest; None where it falls along none.

    Between two neighboring lines the objective is linear, so that a vertex from which no line leads down is a minimum.
    """
    on_line = np.abs(error) <= tolerance
    signed = weight * np.sign(error) * ~on_line
    slope_s, slope_t = float(signed @ x), float(signed.sum())
    touching = np.flatnonzero(on_line)
    at, mass = x[touching], weight[touching]
    # Along (1, -x_k): what the others gain or lose, and what the samples of the other lines lose, at |x_l - x_k| each.
    order = np.argsort(at, kind="stable")
    at, mass, touching = at[order], mass[order], touching[order]
    below, moment = np.cumsum(mass), np.cumsum(mass * at)
    spread = at * (2 * below - below[-1]) + moment[-1] - 2 * moment
    slopes = spread - np.abs(slope_s - at * slope_t)
    steepest = int(slopes.argmin())
    falls = slopes[steepest] < -_FLAT * float(weight @ np.abs(x - at[steepest]))
    return int(touching[steepest]) if falls else None
