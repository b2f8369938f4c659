"""How steady the depth of rendered clips is, how right, and what it costs; against exact depth.

``clips``: short clips of several rooms through which a camera walks, with and without what `mforce_core.video` does.
``long``: one clip of 200 frames, for what adds up.
``cuts``: the distances by which shots are told from each other, in walks of several paces and across cuts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..mforce_core.pipeline import Pipeline
from ..mforce_core.sampling.noise import draw_noise
from ..mforce_core.video.changes import CUT, shot_distance
from ..mforce_core.video.flow import import_cv2
from ..mforce_core.video.frame_depth import FrameDepth
from ..mforce_core.video.steady import Steadiness, steady_depth
from ..scenes import sample_layouts
from . import intervals
from .clips import render_clip

#: Frames of the short clips and of the long one.
SHORT, LONG = 12, 200
#: Rooms between which cuts are measured, and the side of their pictures.
_ROOMS, _ROOM_SIDE = 48, 64
#: Frames of a walk that lie between the two whose distance is measured.
_PACES = (1, 4, 8)

INDEPENDENT, ONE_NOISE = "independent frames", "one noise"
STEADY = "one noise, one scale"
CARRIED = f"{STEADY}, carried at 0.5"
#: Whether every frame draws its own noise, and what is done against flicker.
VARIANTS: Mapping[str, tuple[bool, Steadiness]] = {
    INDEPENDENT: (True, Steadiness(one_scale=False)),
    ONE_NOISE: (False, Steadiness(one_scale=False)),
    STEADY: (False, Steadiness()),
    CARRIED: (False, Steadiness(carry=0.5)),
    f"{CARRIED} along the flow": (False, Steadiness(carry=0.5, flow=True)),
}

#: Of them, those that the long clip is measured with.
LASTING = (INDEPENDENT, STEADY, CARRIED)
#: The variants of every section.
_MEASURED: Mapping[str, Sequence[str]] = {"clips": tuple(VARIANTS), "long": LASTING, "cuts": ()}
SECTIONS = tuple(_MEASURED)

Row = dict[str, Any]


@dataclass
class _Known:
    """Depth from noise of the frames of a clip, made once for all variants, and the seconds that it took."""

    depth_of: FrameDepth
    own_noise: bool
    maps: list[Tensor] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    next: int = 0
    spent: float = 0.0

    def __call__(self, pictures: Tensor, start: Tensor | None = None, level: float = 1.0) -> Tensor:
        if start is not None:
            return self._timed(partial(self.depth_of, pictures, start, level))
        made = []
        for picture in pictures:
            if self.next == len(self.maps):
                self._draw()
                before = self.spent
                self.maps.append(self._timed(partial(self.depth_of, picture[None]))[0])
                self.seconds.append(self.spent - before)
            else:
                self.spent += self.seconds[self.next]
            made.append(self.maps[self.next])
            self.next += 1
        return torch.stack(made)

    def _draw(self) -> None:
        if self.own_noise:
            shapes = [tuple(noise.shape) for noise in self.depth_of.noise]
            self.depth_of.noise = draw_noise(shapes[0], shapes[1], self.depth_of.job.seed + 1 + len(self.maps))

    def _timed(self, work: Callable[[], Tensor]) -> Tensor:
        start = time.process_time()
        depth = work()
        self.spent += time.process_time() - start
        return depth


def check_sections(sections: Sequence[str]) -> None:
    """See that sections can be measured, before there is a model.

    Raises:
        ValueError: an unknown section.
        ModuleNotFoundError: one of them follows the flow, and OpenCV is not installed.
    """
    unknown = sorted(set(sections) - set(SECTIONS))
    if unknown:
        raise ValueError(f"A study of video has {', '.join(SECTIONS)}, not {', '.join(unknown)}.")
    if any(VARIANTS[name][1].flow for section in sections for name in _MEASURED[section]):
        import_cv2()


class VideoStudy:
    """A loaded model and how it is measured.

    Args:
        pipeline: the model; its size is square.
        steps: of every rollout from noise.
        seed: of rooms, ways and noise.
    """

    def __init__(self, pipeline: Pipeline, steps: int, seed: int) -> None:
        self.pipeline, self.seed = pipeline, seed
        self.job = pipeline.job("i2d", "", steps=steps, seed=seed)
        width, height = self.job.canvas
        if width != height:
            raise ValueError(f"A study of video needs a square `size`, got {width}x{height}.")
        self.side = width

    def rows(self, section: str, clips: int) -> Iterator[Row]:
        """The measurements of a section, row by row.

        Args:
            section: of `SECTIONS`.
            clips: how many short clips.
        """
        if section == "cuts":
            yield from cut_distances(self.seed)
            return
        count, frames = (clips, SHORT) if section == "clips" else (1, LONG)
        names = _MEASURED[section]
        found: dict[str, list[Row]] = {name: [] for name in names}
        for number in range(count):
            rendered = render_clip(sample_layouts(1, self.seed, number), frames, self.seed + number, self.side)
            for name, row in self._clip(*rendered, names):
                found[name].append(row)
        for name, measured in found.items():
            values = {key: torch.tensor([row[key] for row in measured]) for key in measured[0]}
            estimates = {key: intervals.mean(column) for key, column in values.items()}
            row = {"name": name, "clips": count, "frames": frames, **intervals.as_json(estimates)}
            if count == 1:
                del row["intervals"]
            yield row

    def _clip(self, pictures: Tensor, truth: Tensor, names: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """Variants, the independent frames first, on a clip (T, 3, H, W) with its exact depth (T, H, W)."""
        known = {own: _Known(FrameDepth(self.pipeline, self.job), own) for own in (True, False)}
        alone = 0.0
        for name in names:
            own, how = VARIANTS[name]
            # A chain asks for single frames: what it makes from noise is none of the others'.
            depth_of = _Known(FrameDepth(self.pipeline, self.job), own) if how.carry else known[own]
            depth_of.next, depth_of.spent = 0, 0.0
            frames = list(steady_depth(pictures, depth_of, how))
            depth = torch.stack([one.depth for one in frames])
            alone = depth_of.spent if name == INDEPENDENT else alone
            cost = {"seconds": depth_of.spent / len(frames), "times_independent": depth_of.spent / alone}
            yield name, {**measures(depth, truth), **cost, "shots": float(sum(one.starts_shot for one in frames))}


def measures(depth: Tensor, truth: Tensor) -> dict[str, float]:
    """How steady and how right the depth of a clip is, all of (T, H, W).

    Returns:
        flicker: mean change of log depth from frame to frame, at a pixel, that the truth does not have; scale_jump: of
        the frame's scale; scale_range: between the largest and the smallest scale of the clip; scale_drift: between its
        first and its last tenth; absrel: with one scale for the clip, and absrel_each: with one for each frame.
    """
    error = depth.log() - truth.log()
    scale = error.flatten(1).nanmedian(1).values
    tenth = max(1, len(scale) // 10)
    return {
        "flicker": float(error.diff(dim=0).abs().nanmean()),
        "scale_jump": float(scale.diff().abs().mean()),
        "scale_range": float(scale.max() - scale.min()),
        "scale_drift": float((scale[-tenth:].mean() - scale[:tenth].mean()).abs()),
        "absrel": float(((error - error.nanmedian()).exp() - 1).abs().nanmean()),
        "absrel_each": float(((error - scale[:, None, None]).exp() - 1).abs().nanmean()),
    }


def cut_distances(seed: int) -> Iterator[Row]:
    """Distances of frames of one walk at several paces, and of the last of one room and the first of the next."""
    clips = [
        render_clip(sample_layouts(1, seed, number), max(_PACES) + 1, seed + number, _ROOM_SIDE)[0]
        for number in range(_ROOMS)
    ]
    for pace in _PACES:
        walks = torch.tensor([shot_distance(clip[0], clip[pace]) for clip in clips])
        yield {"name": f"a walk, {pace} frames apart", **_spread(walks), "taken_for_cuts": _share(walks >= CUT)}
    pairs = zip(clips, clips[1:] + clips[:1], strict=True)
    cuts = torch.tensor([shot_distance(one[-1], other[0]) for one, other in pairs])
    yield {"name": "a cut to another room", **_spread(cuts), "taken_for_cuts": _share(cuts >= CUT)}


def _spread(values: Tensor) -> dict[str, float]:
    return {"least": float(values.min()), "median": float(values.median()), "most": float(values.max())}


def _share(hits: Tensor) -> float:
    return float(hits.float().mean())
