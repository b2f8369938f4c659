"""All three tasks by one way of sampling, and how they compare with another way: the same prompts, scenes and seeds.

Errors, where lower is better:

- ``shape_error``, ``color_error``: pictures of one object whose shape the judge of shapes, or whose color the dominant
  hue, does not name as the prompt does; ``outline_error``: 1 minus the overlap of a sphere's outline with a circle.
- ``rgb_seam``, ``depth_seam``: steps across token borders over steps inside tokens.
- ``joint_absrel``: depth sampled with its picture against the depth that one model, the same for all ways, sees in that
  picture; ``i2d_absrel``: depth of a rendered picture against the exact depth; ``d2i_absrel``: the depth that this
  model sees in a picture made from depth, against that depth.
- ``joint_frechet``, ``d2i_frechet``: distance of the cells of made pictures to those of rendered ones, see
  :mod:`.frechet`.

``diversity`` is the mean distance between pictures of one prompt from different seeds, as the root of their mean
squared difference: a model that collapsed makes one picture of a prompt.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..mforce_core.release import CFG, LOG2_ALPHA
from ..scenes.vocabulary import SHAPES
from . import intervals
from .appearance import dominant_hue, object_mask, roundness, seam_steps
from .frechet import cell_distance
from .intervals import Estimate
from .judge import load_judge
from .kept_tensors import KeptTensors
from .metrics import scaled_abs_rel
from .nano import HUES, object_prompts
from .sampling_subject import Subject, Way

Made = dict[str, Tensor]

#: Measures that are shares of pictures.
_SHARES = ("shape_error", "color_error")

#: Steps in which the judge sees depth in pictures: more lower no error of nano's.
_SEEING = 4


class Ways(NamedTuple):
    """How the three tasks are sampled."""

    joint: Way
    i2d: Way
    d2i: Way


def released(steps: int) -> Ways:
    """As the release does, with guidance."""
    path = f"tilt log2_alpha={LOG2_ALPHA:g}"
    return Ways(
        Way(path, steps, cfg=CFG["joint"]), Way("i2d", steps, cfg=CFG["i2d"]), Way("d2i", steps, cfg=CFG["d2i"])
    )


@dataclass(frozen=True)
class Counts:
    """How much is sampled: ``prompts`` of one object each, ``scenes`` with exact depth, and ``varied`` prompts in
    ``seeds`` pictures each."""

    prompts: int = 96
    scenes: int = 64
    varied: int = 8
    seeds: int = 4


class Inputs:
    """What every way of sampling is asked for."""

    def __init__(self, subject: Subject, counts: Counts) -> None:
        known = object_prompts()
        chosen = [known[number * len(known) // counts.prompts % len(known)] for number in range(counts.prompts)]
        self.counts = counts
        self.prompts = [prompt.text for prompt in chosen]
        self.shapes = torch.tensor([prompt.shape for prompt in chosen])
        self.colors = [prompt.color for prompt in chosen]
        self.layout, self.images, self.depth = subject.scenes(counts.scenes)
        self.captions = subject.captions(self.layout)
        self.rgb_tokens, self.depth_tokens = subject.encode(self.images), subject.encode_depth(self.depth)


def make(subject: Subject, ways: Ways, inputs: Inputs) -> Made:
    """Tokens of everything that is measured."""
    device, counts = subject.pipeline.device, inputs.counts
    joint = subject.run(inputs.prompts, ways.joint)
    scenes = subject.run(inputs.captions, ways.joint)
    empty = [""] * counts.scenes
    seen = subject.run(empty, ways.i2d, mode="i2d", rgb=inputs.rgb_tokens.to(device))
    drawn = subject.run(inputs.captions, ways.d2i, mode="d2i", depth=inputs.depth_tokens)
    varied = inputs.captions[: counts.varied]
    many = torch.stack([subject.run(varied, ways.joint, again=1 + number).rgb for number in range(counts.seeds)])
    return {
        "joint_rgb": joint.rgb,
        "joint_depth": joint.depth,
        "scenes_rgb": scenes.rgb,
        "scenes_depth": scenes.depth,
        "i2d_depth": seen.depth,
        "d2i_rgb": drawn.rgb,
        "varied_rgb": many.flatten(0, 1),
    }


def kept(subject: Subject, ways: Ways, inputs: Inputs, file: Path | None) -> Made:
    """:func:`make`, from a file where it is there, since many steps take long.

    Raises:
        ValueError: the file holds what another model, or other settings, made.
    """
    settings = [way.settings for way in ways]
    made_of = [subject.pipeline.model_files, subject.seed, subject.side, astuple(inputs.counts), settings]
    file_of = KeptTensors(file, made_of, "what another model, seed or number of pictures gave")
    if (found := file_of.read()) is not None:
        return found
    made = make(subject, ways, inputs)
    file_of.write(made)
    return made


class Measured:
    """Measures of one way of sampling, picture by picture, and of all pictures together.

    Args:
        made: tokens.
        inputs: what was asked for.
        judge: decodes pictures and sees depth in them, whoever made them.
    """

    def __init__(self, made: Made, inputs: Inputs, judge: Subject) -> None:
        self.made, self.inputs, self.judge = made, inputs, judge

    @cached_property
    def columns(self) -> dict[str, Tensor]:
        """(B,) or, where the ratio of two means counts, (B, 2)."""
        made, inputs, judge = self.made, self.inputs, self.judge
        pictures = judge.decode(made["joint_rgb"])
        hues = torch.tensor([dominant_hue(picture, HUES) for picture in pictures])
        rounds = [
            roundness(object_mask(picture, HUES, color))
            for picture, color, shape in zip(pictures, inputs.colors, inputs.shapes, strict=True)
            if shape == SHAPES.index("sphere")
        ]
        depth, drawn = judge.maps(made["scenes_depth"]), judge.depth_of(made["d2i_rgb"], _SEEING)
        seen = judge.depth_of(made["scenes_rgb"], _SEEING)
        return {
            "shape_error": load_judge().shapes(pictures) != inputs.shapes,
            "color_error": hues != torch.tensor(inputs.colors),
            "outline_error": 1 - torch.tensor(rounds),
            "rgb_seam": seam_steps(pictures),
            "depth_seam": seam_steps(depth.log()),
            "joint_absrel": scaled_abs_rel(depth, seen),
            "i2d_absrel": scaled_abs_rel(judge.maps(made["i2d_depth"]), inputs.depth),
            "d2i_absrel": scaled_abs_rel(drawn, inputs.depth),
            "diversity": spread(judge.decode(made["varied_rgb"]), inputs.counts.seeds),
        }

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        found = {name: _estimate(name, column) for name, column in self.columns.items() if len(column)}
        for name in ("scenes", "d2i"):
            again = self.judge.encode(self.judge.decode(self.made[f"{name}_rgb"]))
            found[f"{'joint' if name == 'scenes' else name}_frechet"] = cell_distance(again, self.inputs.rgb_tokens)
        return found

    def over(self, other: Measured) -> dict[str, Estimate]:
        """This way's means over the other's, with intervals over the pictures that both made."""
        pairs = {name: (column, other.columns[name]) for name, column in self.columns.items()}
        return {
            name: intervals.ratio(torch.stack(pair, dim=1))
            for name, pair in pairs.items()
            if name not in _SHARES and pair[0].ndim == 1 and len(pair[0])
        }

    def minus(self, other: Measured) -> dict[str, Estimate]:
        """This way's shares minus the other's, likewise."""
        return {name: intervals.mean(self.columns[name].float() - other.columns[name].float()) for name in _SHARES}


def spread(pictures: Tensor, seeds: int) -> Tensor:
    """Mean distance between the pictures of each prompt, (prompts,); pictures (seeds * prompts, 3, H, W)."""
    by_seed = pictures.unflatten(0, (seeds, -1))
    pairs = combinations(by_seed, 2)
    return torch.stack([(one - other).square().flatten(1).mean(1).sqrt() for one, other in pairs]).mean(0)


def row(name: str, ways: Ways, measured: Measured) -> dict[str, Any]:
    """A line of a table: values by name, and ``intervals``."""
    line: dict[str, Any] = {"name": name, "steps": ways.joint.steps, "cfg": ways.joint.cfg, "path": ways.joint.path}
    return line | intervals.as_json(measured.estimates)


def _estimate(name: str, column: Tensor) -> Estimate:
    if name in _SHARES:
        return intervals.share(column)
    return intervals.mean(column) if column.ndim == 1 else intervals.ratio(column)
