"""The paper's studies of paths through the noise levels, on any model: Fig. 7 (trajectories) and Fig. 8 (conditioning).

- Trajectories: picture and depth sampled together with the image ahead (log2 alpha above 0), both at once (0) or depth
  ahead (below 0). Measured: the sampled depth against the depth that a judge sees in the sampled picture.
- Conditioning: pictures made from depth that is followed strictly (log2 alpha far below 0) or loosely. Measured: the
  depth that a judge sees in the picture against the depth that was given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch

from ..mforce_core.inputs import Given, take_depth
from ..mforce_core.parts import Parts
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.release import CFG
from ..mforce_core.results.result import Result
from ..mforce_core.settings import Settings
from ..scenes import captions, render, sample_layouts
from . import intervals
from .depth.alignment import Limits, align
from .depth.example import Example
from .depth.metrics import depth_errors
from .depth.predictors import PredictorSpec, open_predictor
from .seeds import picture_seed
from .table import Row, Table

StudyName = Literal["trajectories", "conditioning"]

#: log2 alpha of the figures; None, in conditioning, is depth that stays clean throughout.
TRAJECTORIES: tuple[float, ...] = (-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5)
CONDITIONING: tuple[float | None, ...] = (None, -14, -11, -8, -5, -2, 1)

_MEASURES = ("absrel", "delta1", "delta2")


@dataclass(frozen=True)
class StudyJob:
    """What is sampled and how it is judged; it can be sent to other processes.

    Attributes:
        study: which.
        settings: resolved, of the model under study.
        parts: where its networks are.
        judge: what sees depth in pictures: often the model's own image to depth.
        alignment: of the depth that is judged, see `ALIGNMENTS`.
        prompts: one per picture; empty: the captions of rendered scenes.
        seed: of scenes and noise.
    """

    study: StudyName
    settings: Settings
    parts: Parts
    judge: PredictorSpec
    alignment: str
    prompts: tuple[str, ...] = ()
    seed: int = 1_000_000


class Portion(NamedTuple):
    """Pictures of one log2 alpha that are sampled as one batch."""

    value: float | None
    indices: tuple[int, ...]


def portions(values: Sequence[float | None], count: int, batch: int) -> list[Portion]:
    """All work of a study; the same pictures for every value."""
    groups = [tuple(range(start, min(start + batch, count))) for start in range(0, count, batch)]
    return [Portion(value, group) for group in groups for value in values]


def row_name(value: float | None, index: int) -> str:
    """Name of a picture's row: its value and number."""
    return f"{label(value)}/{index:05d}"


def label(value: float | None) -> str:
    """A value for people."""
    return "clean" if value is None else f"{value:g}"


class StudyWorker:
    """Samples and judges portions; one per process.

    Args:
        job: what to do.
        device: where.
    """

    def __init__(self, job: StudyJob, device: str, say: Callable[[str], None] | None = None) -> None:
        say = say or (lambda text: None)
        self.job = job
        self.pipeline = Pipeline(replace(job.settings, device=device), job.parts, job.prompts, say)
        self.judge = open_predictor(job.judge, device, say)

    def __call__(self, portion: Portion) -> list[Row]:
        """The rows of a portion; pictures whose depth cannot be compared have a reason instead of measures."""
        prompts, depths = self._inputs(portion.indices)
        results = self._sample(portion, prompts, depths)
        return [
            self._judged(row_name(portion.value, index), result)
            for index, result in zip(portion.indices, results, strict=True)
        ]

    def _inputs(self, indices: Sequence[int]) -> tuple[list[str], list[np.ndarray]]:
        """Prompts and, for conditioning, depth maps (H, W) of the canvas."""
        scenes = [sample_layouts(1, self.job.seed, index) for index in indices]
        prompts = [self.job.prompts[index] for index in indices] if self.job.prompts else []
        prompts = prompts or [captions(scene)[0] for scene in scenes]
        if self.job.study == "trajectories":
            return prompts, []
        side = min(self.job.settings.canvas)
        return prompts, [render(scene, side)[1][0].numpy() for scene in scenes]

    def _sample(self, portion: Portion, prompts: Sequence[str], depths: Sequence[np.ndarray]) -> list[Result]:
        mode: Literal["joint", "d2i"] = "joint" if self.job.study == "trajectories" else "d2i"
        base = replace(self.job.settings, mode=mode, cfg=CFG[mode])
        base = replace(base, tilt=portion.value) if mode == "joint" else replace(base, follow=portion.value)
        jobs = [
            replace(base, prompt=prompt, seed=picture_seed(self.job.seed, index))
            for index, prompt in zip(portion.indices, prompts, strict=True)
        ]
        given = [take_depth(depth, base) for depth in depths] or [Given()] * len(jobs)
        return self.pipeline.generate(jobs, given)

    def _judged(self, name: str, result: Result) -> Row:
        mask = np.isfinite(result.depth)
        example = Example(name, result.image, result.depth, mask)
        try:
            seen = self.judge.predict(example)
            # In both studies the picture's own depth, as the judge sees it, is what counts as true.
            wanted, found = (seen, result.depth) if self.job.study == "trajectories" else (result.depth, seen)
            mask = mask & np.isfinite(wanted) & (wanted > 0)
            kind = "depth" if self.job.study == "trajectories" else self.judge.kind
            aligned = align(self.job.alignment, found, wanted, mask, Limits(), kind)
            errors = depth_errors(aligned, wanted, mask)
        except ValueError as error:
            return Row(name, {}, str(error))
        return Row(name, {measure: errors[measure] for measure in _MEASURES})


def by_value(table: Table, values: Sequence[float | None]) -> dict[str, dict[str, intervals.Estimate]]:
    """For each value the means of its pictures with their intervals."""
    found = {}
    for value in values:
        rows = [row for name, row in table.rows.items() if name.startswith(f"{label(value)}/") and row.measures]
        if rows:
            columns = {name: torch.tensor([row.measures[name] for row in rows]) for name in rows[0].measures}
            found[label(value)] = {name: intervals.mean(column) for name, column in columns.items()}
    return found


def paired_difference(table: Table, first: float | None, second: float | None, count: int) -> intervals.Estimate | None:
    """Mean AbsRel at the first value minus that at the second, picture by picture, with its interval."""
    pairs = [[table.rows.get(row_name(value, index)) for value in (first, second)] for index in range(count)]
    differences = [
        a.measures["absrel"] - b.measures["absrel"] for a, b in pairs if a and b and a.measures and b.measures
    ]
    return intervals.mean(torch.tensor(differences)) if differences else None
