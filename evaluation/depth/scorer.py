"""Scores pictures of a data set one by one; what a process or a machine is given its share of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..table import Row
from .alignment import align
from .datasets import DataSpec, open_data
from .example import DataSet
from .predictors import PredictorSpec, open_predictor
from .protocols import Protocol, score, to_size
from .saved import SavedPredictions


@dataclass(frozen=True)
class DepthJob:
    """What is scored how; it can be sent to other processes."""

    data: DataSpec
    predictor: PredictorSpec
    protocol: Protocol


class Shown(NamedTuple):
    """Picture (H, W, 3) uint8, truth, mask and aligned prediction (H, W)."""

    image: np.ndarray
    truth: np.ndarray
    mask: np.ndarray
    aligned: np.ndarray


def stamp_of_picture(data: DataSet, predictor: object, index: int) -> str:
    """A mark of the files that a picture's measures are made from: its own, and its saved map."""
    saved = predictor.stamp(data.names[index]) if isinstance(predictor, SavedPredictions) else ""
    return data.stamp(index) + saved


class Scorer:
    """Reads, predicts and scores the picture of a number.

    Args:
        job: what to do.
        device: of the model.

    Raises:
        ValueError: the data set or the model is not there or cannot be used.
    """

    def __init__(self, job: DepthJob, device: str) -> None:
        self.job = job
        self.data, _ = open_data(job.data)
        self.predictor = open_predictor(job.predictor, device, lambda text: None, self.data.names)

    def __call__(self, index: int) -> Row:
        """A picture that cannot be used has a reason instead of measures."""
        name, stamp = self.data.names[index], stamp_of_picture(self.data, self.predictor, index)
        try:
            example = self.data.read(index)
            prediction = self.predictor.predict(example)
            measures = score(
                example, prediction, self.predictor.kind, self.job.protocol, self.data.limits, self.data.sharp
            )
        except (ValueError, OSError) as error:
            return Row(name, {}, " ".join(str(error).split()), stamp)
        return Row(name, measures, stamp=stamp)

    def shown(self, index: int) -> Shown:
        """What a contact sheet shows of a number; raises ValueError."""
        example = self.data.read(index)
        prediction = to_size(self.predictor.predict(example), example.depth.shape)
        name = self.job.protocol.alignments[0]
        aligned = align(name, prediction, example.depth, example.mask, self.data.limits, self.predictor.kind)
        return Shown(example.image, example.depth, example.mask, aligned)
