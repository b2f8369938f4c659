"""Means over pictures, or over a few runs, with their confidence intervals."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, bootstrap, t
from torch import Tensor

_RESAMPLES = 2000


class Estimate(NamedTuple):
    """A measure over a sample and its 95% interval: of a bootstrap over pictures, of Wilson for a share of them, of
    Student's t over runs."""

    value: float
    low: float
    high: float


def mean(values: Tensor) -> Estimate:
    """Mean over pictures (B,)."""
    return _bootstrapped((values,), np.mean)


def of_runs(values: Tensor) -> Estimate:
    """The mean over a few runs (N,), N at least 2, whose results are about normally distributed."""
    middle, spread = float(values.mean()), float(values.std()) / len(values) ** 0.5
    reach = float(t.ppf(0.975, len(values) - 1)) * spread
    return Estimate(middle, middle - reach, middle + reach)


def share(hits: Tensor) -> Estimate:
    """Share of the pictures (B,) bool that are True, with Wilson's interval.

    A bootstrap of pictures that all agree has no width, however few they are.
    """
    trial = binomtest(int(hits.sum()), len(hits))
    found = trial.proportion_ci(method="wilson")
    return Estimate(float(trial.statistic), float(found.low), float(found.high))


def ratio(values: Tensor) -> Estimate:
    """Ratio of the means of two measures of the same pictures, (B, 2)."""
    return _bootstrapped(tuple(values.unbind(1)), lambda a, b, axis=-1: np.mean(a, axis) / np.mean(b, axis))


def unevenness(values: Tensor) -> Estimate:
    """Largest of the means of several measures of the same pictures, (B, N), by the mean of these means."""

    def largest(*columns: np.ndarray, axis: int = -1) -> np.ndarray:
        means = np.stack([np.mean(column, axis) for column in columns])
        return means.max(0) / means.mean(0)

    return _bootstrapped(tuple(values.unbind(1)), largest)


def _bootstrapped(columns: tuple[Tensor, ...], statistic: object) -> Estimate:
    arrays = tuple(column.double().numpy() for column in columns)
    value = float(statistic(*arrays))  # type: ignore[operator]
    if len(arrays[0]) < 2 or all(np.ptp(array) == 0 for array in arrays):
        return Estimate(value, value, value)
    found = bootstrap(
        arrays,
        statistic,
        n_resamples=_RESAMPLES,
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(value, float(found.low), float(found.high))


def as_json(estimates: Mapping[str, Estimate]) -> dict[str, object]:
    """Values by name, and the intervals under ``intervals``."""
    return {name: estimate.value for name, estimate in estimates.items()} | {
        "intervals": {name: [estimate.low, estimate.high] for name, estimate in estimates.items()}
    }
