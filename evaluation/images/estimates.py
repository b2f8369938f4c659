"""Depth as an estimator sees it in real and in made pictures: one that runs here, or saved maps of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from ..depth.alignment import Kind
from ..depth.example import Example
from ..depth.predictors import FromFiles, Predictor, PredictorSpec, open_predictor
from ..depth.protocols import to_size
from ..depth.saved import SavedPredictions

#: Folders of the real and the made pictures, of one size and under one name, as the libraries of FID want them.
REAL, MADE = "real", "made"


class Estimates(Protocol):
    """Maps of pictures by the folder that they are in; ``kind`` says whether larger numbers are farther or nearer."""

    kind: Kind

    def of(self, folder: str, name: str, image: np.ndarray) -> np.ndarray:
        """(H, W) float of an image (H, W, 3), NaN where there is none; raises ValueError."""
        ...

    def stamp(self, folder: str, name: str) -> str:
        """A mark of the file that a map is in, empty where there is none."""
        ...


def open_estimates(
    spec: PredictorSpec, output: Path, names: Sequence[str], device: str, say: Callable[[str], None]
) -> Estimates:
    """What sees depth in the pictures of a run in ``output``; see :func:`..depth.predictors.open_predictor`."""
    if isinstance(spec, FromFiles):
        return SavedEstimates(spec, output, names)
    return EstimatedHere(open_predictor(spec, device, say))


class EstimatedHere:
    """Maps of a model that runs in this process."""

    def __init__(self, predictor: Predictor) -> None:
        self.kind, self.predictor = predictor.kind, predictor

    def of(self, folder: str, name: str, image: np.ndarray) -> np.ndarray:
        shape = image.shape[:2]
        return self.predictor.predict(Example(name, image, np.ones(shape, np.float32), np.ones(shape, bool)))

    def stamp(self, folder: str, name: str) -> str:
        return ""


class SavedEstimates:
    """Maps in the folders ``real`` and ``made`` of a folder, under the names of the pictures.

    Args:
        spec: the folder, and what its maps are.
        output: of the run, whose folders ``real`` and ``made`` hold the pictures.
        names: of all pictures, see `SavedPredictions`.
    """

    def __init__(self, spec: FromFiles, output: Path, names: Sequence[str]) -> None:
        self.kind, self.folder, self.output = spec.kind, spec.folder, output
        self._maps = cache(lambda folder: SavedPredictions(spec.folder / folder, spec.kind, names))

    def of(self, folder: str, name: str, image: np.ndarray) -> np.ndarray:
        """Also raises ValueError where the map is older than the made picture, and therefore of another."""
        maps = self._maps(folder)
        path, picture = maps.find(name), self.output / folder / f"{name}.png"
        if folder == MADE and path.stat().st_mtime_ns < picture.stat().st_mtime_ns:
            raise ValueError(f"{path} is older than {picture}: estimate its depth again")
        return to_size(maps.read(path), image.shape[:2])

    def stamp(self, folder: str, name: str) -> str:
        try:
            return self._maps(folder).stamp(name)
        except ValueError:
            return ""
