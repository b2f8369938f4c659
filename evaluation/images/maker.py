"""Makes a picture from the depth of a real one, and measures whether it has that depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...mforce_core.inputs import take_depth
from ...mforce_core.picture.placement import CROP, place
from ...mforce_core.pipeline import Pipeline
from ...mforce_core.settings import Settings
from ...mforce_core.weights.parts import Parts
from ..depth.alignment import Kind, Limits, align
from ..depth.example import Example
from ..depth.metrics import depth_errors
from ..depth.predictors import PredictorSpec, open_predictor
from ..seeds import picture_seed
from ..table import Row
from .pairs import ListedPairs, Pair, Pairs, RenderedPairs

#: Folders of the real and the made pictures, of one size and under one name, as the libraries of FID want them.
REAL, MADE = "real", "made"

#: Measures of how the depth is followed.
_MEASURES = ("absrel", "delta1", "rmse")


@dataclass(frozen=True)
class PairSpec:
    """A list and the folder of its pictures, or so many rendered scenes."""

    listing: Path | None
    folder: Path | None
    scenes: int = 64
    seed: int = 1_000_000


def open_pairs(spec: PairSpec) -> Pairs:
    """Raises ValueError where the list cannot be used."""
    if spec.listing is None:
        return RenderedPairs(spec.scenes, spec.seed)
    return ListedPairs(spec.listing, spec.folder or spec.listing.parent)


@dataclass(frozen=True)
class ImageJob:
    """What is made and how it is judged; it can be sent to other processes.

    Attributes:
        pairs: real pictures.
        settings: resolved, of mode d2i.
        parts: where the networks are.
        estimator: sees depth in real and in made pictures.
        alignment: of the one to the other, see `ALIGNMENTS`; both are taken as they come from the estimator.
        far_to_near: of an estimator of disparity: how many times farther its least is than its most.
        output: folder of the pictures.
    """

    pairs: PairSpec
    settings: Settings
    parts: Parts
    estimator: PredictorSpec
    alignment: str
    far_to_near: float
    output: Path


class PictureMaker:
    """Makes and judges the picture of a number; one per process."""

    def __init__(self, job: ImageJob, device: str, say: Callable[[str], None] | None = None) -> None:
        say = say or (lambda text: None)
        self.job = job
        self.pairs = open_pairs(job.pairs)
        self.estimator = open_predictor(job.estimator, device, say)
        self.pipeline = Pipeline(replace(job.settings, device=device), job.parts, [], say)

    def __call__(self, index: int) -> Row:
        """A picture that cannot be used has a reason instead of measures."""
        name = self.pairs.names[index]
        try:
            pair = self._cropped(self.pairs.read(index))
            seen = self.estimator.predict(_example(pair.name, pair.image))
            depth = pair.depth if pair.depth is not None else as_depth(seen, self.estimator.kind, self.job.far_to_near)
            settings = replace(self.job.settings, prompt=pair.caption, seed=picture_seed(self.job.settings.seed, name))
            (result,) = self.pipeline.generate([settings], [take_depth(depth, settings)])
            for folder, pixels in ((REAL, pair.image), (MADE, result.image)):
                self._save(folder, name, pixels)
            again = self.estimator.predict(_example(pair.name, result.image))
            mask = np.isfinite(seen) & (seen > 0)
            aligned = align(self.job.alignment, again, seen, mask, Limits(), "depth")
            errors = depth_errors(aligned, seen, mask)
        except (ValueError, OSError) as error:
            return Row(name, {}, " ".join(str(error).split()))
        return Row(name, {measure: errors[measure] for measure in _MEASURES})

    def _cropped(self, pair: Pair) -> Pair:
        """The middle of the picture, and of its depth, in the shape and at the size of the model's canvas."""
        width, height = self.job.settings.canvas
        placement = place(pair.image.shape[:2], (height, width), CROP)
        image = placement.place_photo(Image.fromarray(pair.image))
        depth = None if pair.depth is None else placement.place_depth(torch.from_numpy(pair.depth)[None])[0].numpy()
        return replace(pair, image=image, depth=depth)

    def _save(self, folder: str, name: str, pixels: np.ndarray) -> None:
        path = self.job.output / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.part")
        Image.fromarray(pixels).save(partial, format="PNG")
        partial.replace(path)


def as_depth(seen: np.ndarray, kind: Kind, far_to_near: float) -> np.ndarray:
    """Depth (H, W) of an estimator's map. Disparity known up to an offset is stretched to a ratio of far to near."""
    if kind == "depth":
        return seen
    low, high = np.nanmin(seen), np.nanmax(seen)
    share = (seen - low) / max(high - low, 1e-12)
    return 1 / (share * (1 - 1 / far_to_near) + 1 / far_to_near)


def _example(name: str, image: np.ndarray) -> Example:
    shape = image.shape[:2]
    return Example(name, image, np.ones(shape, np.float32), np.ones(shape, bool))
