"""A prediction beside its truth."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .samples import nearest_samples


class Pair:
    """A prediction and the truth, and what several alignments need of them, computed once.

    Args:
        prediction: (H, W), NaN where there is none.
        truth: (H, W), read where the mask is set.
        mask: (H, W) bool, the pixels that count.
    """

    def __init__(self, prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> None:
        self._prediction = prediction
        self.truth, self.mask = truth, mask

    @cached_property
    def prediction(self) -> np.ndarray:
        """The map (H, W)."""
        return self._prediction

    @cached_property
    def predicted(self) -> np.ndarray:
        """The prediction (N,) of the pixels that count, NaN where there is none."""
        return self._prediction[self.mask]

    @cached_property
    def measured(self) -> np.ndarray:
        """The truth (N,) of the pixels that count."""
        return self.truth[self.mask]

    @cached_property
    def missing(self) -> int:
        """How many of the pixels that count have no prediction."""
        return len(self.predicted) - int(np.count_nonzero(np.isfinite(self.predicted)))

    @cached_property
    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and truth (M,) float64 of the pixels that have both."""
        predicted, measured = self.predicted, self.measured
        if self.missing:
            there = np.isfinite(predicted)
            predicted, measured = predicted[there], measured[there]
        return predicted.astype(np.float64, copy=False), measured.astype(np.float64, copy=False)

    @cached_property
    def known_mask(self) -> np.ndarray:
        """(H, W) bool, the pixels that have both."""
        return self.mask & np.isfinite(self.prediction) if self.missing else self.mask

    @cached_property
    def samples(self) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and truth (M,) float64 on MoGe's samples of the pixels that have both."""
        at = nearest_samples(self.known_mask)
        return self.prediction[at].astype(np.float64), self.truth[at].astype(np.float64)

    @cached_property
    def inverse(self) -> Pair:
        """The same with depth as disparity, or disparity as depth."""
        return _Inverse(self)


class _Inverse(Pair):
    def __init__(self, pair: Pair) -> None:
        super().__init__(pair.prediction, pair.truth, pair.mask)
        self._pair = pair

    @cached_property
    def prediction(self) -> np.ndarray:
        return inverted(self._pair.prediction)

    @cached_property
    def predicted(self) -> np.ndarray:
        return inverted(self._pair.predicted)

    @cached_property
    def measured(self) -> np.ndarray:
        return self._pair.measured


def inverted(prediction: np.ndarray) -> np.ndarray:
    """1 / prediction in float64; NaN where it is 0."""
    values = prediction.astype(np.float64)
    zero = values == 0
    if zero.any():
        values[zero] = np.nan
    return np.divide(1, values, out=values)
