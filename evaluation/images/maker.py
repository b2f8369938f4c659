"""Makes a picture from the depth of a real one, and measures whether it has that depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...mforce_core.inputs import take_depth
from ...mforce_core.parts import Parts
from ...mforce_core.pipeline import Pipeline
from ...mforce_core.placement import CROP, place
from ...mforce_core.settings import Settings
from ...mforce_core.whole_file import whole_file
from ..depth.alignment import Kind, Limits, align
from ..depth.metrics import depth_errors
from ..depth.predictors import PredictorSpec
from ..seeds import picture_seed
from ..table import Row
from .estimates import MADE, REAL, open_estimates
from .pairs import ListedPairs, Pair, Pairs, RenderedPairs

#: In a made picture's file: the stamp of the saved map that it was made from.
_MADE_FROM = "made_from"

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
        estimator: sees depth in real and in made pictures; of saved maps the folder in which ``real`` and ``made`` lie.
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
        self.estimates = open_estimates(job.estimator, job.output, self.pairs.names, device, say)
        self.pipeline = Pipeline(replace(job.settings, device=device), job.parts, [], say)

    def __call__(self, index: int) -> Row:
        """A picture that cannot be used, or whose depth was not saved yet, has a reason instead of measures."""
        name, estimates = self.pairs.names[index], self.estimates
        try:
            pair = self._cropped(self.pairs.read(index))
            self._save(REAL, name, pair.image)
            seen = estimates.of(REAL, name, pair.image)
            depth = pair.depth if pair.depth is not None else as_depth(seen, estimates.kind, self.job.far_to_near)
            again = estimates.of(MADE, name, self._made(pair, depth))
            mask = np.isfinite(seen) & (seen > 0)
            aligned = align(self.job.alignment, again, seen, mask, Limits(), "depth")
            errors = depth_errors(aligned, seen, mask)
        except (ValueError, OSError) as error:
            return Row(name, {}, " ".join(str(error).split()))
        stamp = estimates.stamp(REAL, name) + estimates.stamp(MADE, name)
        return Row(name, {measure: errors[measure] for measure in _MEASURES}, stamp=stamp)

    def _made(self, pair: Pair, depth: np.ndarray) -> np.ndarray:
        """The picture (H, W, 3) made from depth; one that an earlier run made from the same saved map is kept."""
        stamp = self.estimates.stamp(REAL, pair.name)
        path = self.job.output / MADE / f"{pair.name}.png"
        if stamp and path.is_file():
            with Image.open(path) as kept:
                kept.load()
                if kept.info.get(_MADE_FROM) == stamp:
                    return np.asarray(kept.convert("RGB"))
        seed = picture_seed(self.job.settings.seed, pair.name)
        settings = replace(self.job.settings, prompt=pair.caption, seed=seed)
        (result,) = self.pipeline.generate([settings], [take_depth(depth, settings)])
        self._save(MADE, pair.name, result.image, stamp)
        return result.image

    def _cropped(self, pair: Pair) -> Pair:
        """The middle of the picture, and of its depth, in the shape and at the size of the model's canvas."""
        width, height = self.job.settings.canvas
        placement = place(pair.image.shape[:2], (height, width), CROP)
        image = placement.place_photo(Image.fromarray(pair.image))
        depth = None if pair.depth is None else placement.place_depth(torch.from_numpy(pair.depth)[None])[0].numpy()
        return replace(pair, image=image, depth=depth)

    def _save(self, folder: str, name: str, pixels: np.ndarray, made_from: str = "") -> None:
        path = self.job.output / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = PngInfo()
        if made_from:
            text.add_text(_MADE_FROM, made_from)
        with whole_file(path, suffix="") as partial:  # which measures of a folder's pictures leave out
            Image.fromarray(pixels).save(partial, format="PNG", pnginfo=text)


def as_depth(seen: np.ndarray, kind: Kind, far_to_near: float) -> np.ndarray:
    """Depth (H, W) of an estimator's map. Disparity known up to an offset is stretched to a ratio of far to near."""
    if kind == "depth":
        return seen
    low, high = np.nanmin(seen), np.nanmax(seen)
    share = (seen - low) / max(high - low, 1e-12)
    return 1 / (share * (1 - 1 / far_to_near) + 1 / far_to_near)
