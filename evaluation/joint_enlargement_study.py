"""How sampled pairs look when picture and depth are made larger together, beside the same pairs interpolated.

Scenes of one object are rendered, and their captions sampled at the model's size. Every pair is enlarged in each way:

- ``shape_error``: pictures whose solid the judge does not name as the caption does.
- ``frechet``: distance of the cells of the pictures to those of the scenes rendered at this size, see :mod:`.frechet`.
- ``sharpness``, ``depth_sharpness``: edges of the picture, and of the logarithm of depth, over those of the scenes.
- ``absrel``, ``band``: the pair's depth against the depth that the model sees in the pair's picture at full size, after
  scaling by the median: over all pixels, and in the four pixels around its edges.
- ``seam``, ``depth_seam``: steps across the lines on which tiles begin and end, over steps a token before them, as in
  :mod:`.full_size_study`. A made picture has no error to take them of, so they are of the picture itself: what the
  scenes have there, for all that is in the middle, is to be compared with.

The row of the scenes themselves says what a measure is at best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..mforce_core.depth.resampling import enlarge_depth
from ..mforce_core.full_size.of_settings import larger_pair
from ..mforce_core.inputs import Given
from ..mforce_core.picture.color import to_bytes
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.release import PATCH_SIZE
from ..mforce_core.settings import DEPTH_STEPS, PAIR_STRENGTH, Settings
from ..scenes import captions, render
from . import intervals
from .appearance import sharpness
from .frechet import cell_distance
from .full_size_study import mean_step, tile_borders
from .judge import load_judge, lone_objects
from .metrics import abs_rel, align_median, edge_band
from .sampling_subject import encode_pictures

SCENES, INTERPOLATED = "rendered", "interpolated"
#: Pairs that are sampled together, and tiles.
_BATCH, _TILES = 8, 4

#: Picture (H, W, 3) uint8 with its depth (H, W).
Pair = tuple[np.ndarray, Tensor]
#: From the settings of a sampled pair and the pair to a larger one.
Enlarge = Callable[[Settings, Pair], Pair]
Row = dict[str, Any]


@dataclass
class Pairs:
    """What one way made.

    Attributes:
        pictures: (B, 3, H, W) in [0, 1].
        depth: (B, H, W).
        seen: (B, H, W) depth that the model sees in the pictures.
        tokens: (B, N, C) of the pictures, as the autoencoder encodes them.
        side: of a tile in pixels.
    """

    pictures: Tensor
    depth: Tensor
    seen: Tensor
    tokens: Tensor
    side: int

    @cached_property
    def right(self) -> Tensor:
        """(B,) shapes that the judge names."""
        return load_judge().shapes(self.pictures)

    @cached_property
    def errors(self) -> tuple[Tensor, Tensor]:
        """AbsRel (B,) over all pixels, and at edges, NaN where there are none."""
        aligned = align_median(self.depth, self.seen)
        edges = self.seen.where(edge_band(self.seen), torch.nan)
        return abs_rel(aligned, self.seen), abs_rel(aligned, edges)

    def seams(self, maps: Tensor) -> Tensor:
        """(B, 2) steps of maps (B, ..., H, W) across lines of tiles, and a token before them."""
        borders = tile_borders(maps.shape[-1], self.side)
        lines = borders, borders.roll(-PATCH_SIZE)
        return torch.tensor([[mean_step(each, across) for across in lines] for each in maps])


def study_joint_enlargement(
    pipeline: Pipeline, factor: int, count: int, seed: int, *, say: Callable[[str], None]
) -> Iterator[Row]:
    """Measure every way on the captions of the first scenes of a sequence.

    Args:
        factor: how many times larger pairs become, on a side.
        count: pairs.
        seed: of scenes and noise.
        say: told how far it is.

    Yields:
        The scenes' row, and one for every way, with intervals over the pairs.
    """
    side = pipeline.settings.canvas[0]
    layout = lone_objects(count, seed)
    prompts = captions(layout)
    images, exact = render(layout, factor * side)
    pixels = to_bytes(images.movedim(1, -1)).numpy()
    scenes = _measured(pipeline, list(zip(pixels, exact, strict=True)), seed)
    yield {"name": SCENES, "factor": factor, "pairs": count} | _row(scenes, scenes, layout.shape[:, 0])
    jobs = [pipeline.job("joint", prompt, seed=seed + number) for number, prompt in enumerate(prompts)]
    small: list[Pair] = []
    for start in range(0, count, _BATCH):
        batch = jobs[start : start + _BATCH]
        small += [(one.image, torch.from_numpy(one.depth)) for one in pipeline.generate(batch, [Given()] * len(batch))]
        say(f"{len(small)} of {count} pairs are sampled.")
    for name, way in ways_of(pipeline, factor).items():
        made = []
        for job, pair in zip(jobs, small, strict=True):
            made.append(way(job, pair))
            say(f"{name}: {len(made)} of {count} pairs are {factor} times as large.")
        row = _row(_measured(pipeline, made, seed), scenes, layout.shape[:, 0])
        yield {"name": name, "factor": factor, "pairs": count} | row


def ways_of(pipeline: Pipeline, factor: int) -> dict[str, Enlarge]:
    """Bicubic colors with depth that is linear on surfaces, which is what tiles start from; and tiles."""

    def interpolated(_: Settings, pair: Pair) -> Pair:
        height, width = (factor * side for side in pair[1].shape)
        picture = Image.fromarray(pair[0]).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(picture), enlarge_depth(pair[1][None], (height, width))[0]

    def tiles(job: Settings, pair: Pair) -> Pair:
        networks, larger = pipeline.networks(job.prompt, job.guidance), replace(job, enlarge=factor)
        picture, depth = larger_pair(networks, larger, pair[0], pair[1].numpy(), _TILES, None)
        return picture, torch.from_numpy(depth)

    return {INTERPOLATED: interpolated, f"tiles from {PAIR_STRENGTH:g}": tiles}


def _measured(pipeline: Pipeline, pairs: list[Pair], seed: int) -> Pairs:
    quiet = copy(pipeline)
    quiet.say = _ignore  # that a picture is unfamiliar means nothing where the model itself made it
    pictures = torch.stack([torch.from_numpy(picture.copy()).movedim(-1, 0) / 255 for picture, _ in pairs])
    seen = [
        quiet.i2d(picture, steps=DEPTH_STEPS, seed=seed + number, full_size=True).depth
        for number, (picture, _) in enumerate(pairs)
    ]
    return Pairs(
        pictures,
        torch.stack([depth for _, depth in pairs]),
        torch.from_numpy(np.stack(seen)),
        encode_pictures(pipeline, pictures, _BATCH),
        pipeline.settings.canvas[0],
    )


def _ignore(_: str) -> None:
    """Takes what the pipeline says."""


def _row(made: Pairs, scenes: Pairs, shapes: Tensor) -> Row:
    overall, edges = made.errors
    columns = {
        "shape_error": intervals.share(made.right != shapes),
        "frechet": cell_distance(made.tokens, scenes.tokens),
        "sharpness": _over(sharpness(made.pictures), sharpness(scenes.pictures)),
        "depth_sharpness": _over(sharpness(made.depth.log()), sharpness(scenes.depth.log())),
        "absrel": intervals.mean(overall),
        "band": intervals.mean(edges[edges.isfinite()]),
        "seam": intervals.ratio(made.seams(made.pictures)),
        "depth_seam": intervals.ratio(made.seams(made.depth.log()[:, None])),
    }
    return intervals.as_json(columns)


def _over(made: Tensor, scenes: Tensor) -> intervals.Estimate:
    return intervals.ratio(torch.stack((made, scenes), dim=1))
