"""What makes the predictions that are scored: this project's model, saved maps, or another project's model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from ...mforce_core.depth.ensemble import combine
from ...mforce_core.inputs import take_picture
from ...mforce_core.parts import Parts
from ...mforce_core.pipeline import Pipeline
from ...mforce_core.placement import nearest_size
from ...mforce_core.settings import Settings
from ..seeds import picture_seed
from .alignment import Kind
from .ensemble import ensemble
from .example import Example
from .peers import open_peer
from .saved import SavedPredictions


class Predictor(Protocol):
    """Maps for pictures; ``kind`` says whether larger numbers are farther (depth) or nearer (disparity)."""

    kind: Kind

    def predict(self, example: Example) -> np.ndarray:
        """(h, w) float, NaN where there is none; raises ValueError."""
        ...


@dataclass(frozen=True)
class FromModel:
    """Image to depth with a model of this project.

    Attributes:
        settings: resolved, of mode i2d; its size is the number of pixels that the model works on.
        parts: where the networks are.
        members: maps per picture that become one, each from noise of its own.
        method: how: by Marigold's ensemble, whose result has neither scale nor shift, or by the median of maps at one
            scale.
    """

    settings: Settings
    parts: Parts
    members: int = 1
    method: Literal["marigold", "median"] = "marigold"

    @property
    def affine(self) -> bool:
        """Whether the maps have neither scale nor shift."""
        return self.members > 1 and self.method == "marigold"


@dataclass(frozen=True)
class FromFiles:
    """Saved maps, see `SavedPredictions`."""

    folder: Path
    kind: Kind


@dataclass(frozen=True)
class FromPeer:
    """A model of another project, ``transformers:ID``, ``moge:ID`` or ``marigold:ID``; ``kind`` as for saved maps."""

    name: str
    kind: Kind
    members: int = 1
    seed: int = 0

    @property
    def affine(self) -> bool:
        """Whether the maps have neither scale nor shift."""
        return self.name.startswith("marigold:")


PredictorSpec = FromModel | FromFiles | FromPeer


def open_predictor(
    spec: PredictorSpec, device: str, say: Callable[[str], None], names: Sequence[str] = ()
) -> Predictor:
    """Load what a description names, on one device.

    Args:
        spec: the description.
        device: of a model.
        say: told what is loaded.
        names: of all pictures, see `SavedPredictions`.

    Raises:
        ValueError: it is not there or cannot run.
        ModuleNotFoundError: a peer's package is not installed.
    """
    if isinstance(spec, FromModel):
        return ModelPredictor(replace(spec, settings=replace(spec.settings, device=device)), say)
    if isinstance(spec, FromFiles):
        return SavedPredictions(spec.folder, spec.kind, names)
    return open_peer(spec.name, spec.kind, device=device, members=spec.members, seed=spec.seed)


class ModelPredictor:
    """Image to depth at about the model's own number of pixels, in the picture's proportions.

    A picture's noise depends on the seed and on its name, not on the order in which pictures come.
    """

    kind: Kind = "depth"

    def __init__(self, spec: FromModel, say: Callable[[str], None]) -> None:
        self.spec = spec
        self.pipeline = Pipeline(spec.settings, spec.parts, [""], say)

    def predict(self, example: Example) -> np.ndarray:
        height, width = nearest_size(example.depth.shape, self.spec.settings.canvas[0] * self.spec.settings.canvas[1])
        base = replace(self.spec.settings, size=(width, height), original_size=True)
        first = picture_seed(base.seed, example.name)
        jobs = [replace(base, seed=first + number) for number in range(self.spec.members)]
        given = take_picture(example.image, base)
        results = self.pipeline.generate(jobs, [given] * len(jobs))
        maps = np.stack([result.depth for result in results])
        if self.spec.method == "marigold" or len(maps) == 1:
            return ensemble(maps)
        return combine(torch.from_numpy(maps)).depth.numpy()
