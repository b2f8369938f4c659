"""Views around the corner against scenes that render them exactly: what is in the holes, at their border, along a path.

``view``: the camera moves 0.4 m to the right; the rendered picture and its exact depth are given. ``path``: eight steps
of 0.1 m, each of which sees what the ones before it added. Measured in the holes alone, in the scene's own unit
(nothing is aligned, unless a method leaves the scale open):

- ``psnr`` in dB, ``sharpness``: mean of the picture's largest steps over the truth's, ``absrel``.
- ``seam``: mean difference, from the truth, of the step in log depth across the border of the holes.
- ``psnr_gain``, ``absrel_saved``: against the background on the same scene.
- ``bias``, along a path: mean of log(depth / true depth) of the points that the step added; it would drift.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..mforce_core.depth.codec import decode_depth
from ..mforce_core.explore.filling import FillSettings, PipelineFill
from ..mforce_core.explore.view import Filled, Seen
from ..mforce_core.explore.walk import Fill, extend
from ..mforce_core.explore.world import Camera, World
from ..mforce_core.model.tokens import latents_to_tokens, tokens_to_latents, tokens_to_patches
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.release import NANO_SIZE, PATCH_SIZE
from ..mforce_core.sampling.path import NoisePath
from ..mforce_core.sampling.path_spec import PathSpec
from ..mforce_core.sampling.rollout import sample
from ..mforce_core.sampling.solvers import Streams
from ..mforce_core.scene3d.poses import Pose
from ..scenes import SceneLayout, render, sample_layouts
from ..scenes.camera import Camera as SceneCamera
from ..scenes.camera import own_camera
from . import intervals

#: Meters to the right, in one step and along the path.
ASIDE, STRIDE, STRIDES = 0.4, 0.1, 8
#: Of the steps of a picture inside holes, the share that sharpness is the mean of.
_EDGES = 0.05

Row = dict[str, Any]


def one_view(pipeline: Pipeline, count: int, seed: int) -> Iterator[Row]:
    """The methods' rows, on as many scenes."""
    columns: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(count):
        layout = sample_layouts(1, seed, number)
        own = own_camera(layout)
        moved = own.moved(right=ASIDE)
        torn, stretched = (world_of(layout, own, threshold) for threshold in (0.0, 1e6))
        there = camera_of(own, moved)
        seen = Seen.of(torn.see(there))
        truth = _render(layout, moved, len(seen.known))
        methods = _methods(pipeline, seen, seed + number)
        methods["stretched"] = Seen.of(stretched.see(there)).as_it_is
        found = {name: measures_in_holes(make(), truth, seen.known) for name, make in methods.items()}
        for name, measures in found.items():
            measures["psnr_gain"] = measures["psnr"] - found["background"]["psnr"]
            measures["absrel_saved"] = found["background"]["absrel"] - measures["absrel"]
            for measure, value in measures.items():
                columns[name][measure].append(value)
    for name, lists in columns.items():
        yield {"name": name, "pictures": count, **_numbers(lists)}


def along_a_path(pipeline: Pipeline, count: int, seed: int) -> Iterator[Row]:
    """A row for each step of the walk, filled by the model and from the background."""
    ways: dict[str, Callable[[int], Fill]] = {
        "both streams": lambda number: PipelineFill(pipeline, FillSettings(seed=seed + 100 * number)),
        "background": lambda number: lambda seen, step: seen.as_it_is(),
    }
    for name, fill_of in ways.items():
        columns = [defaultdict[str, list[float]](list) for _ in range(STRIDES)]
        for number in range(count):
            layout = sample_layouts(1, seed, number)
            own = own_camera(layout)
            world, fill = world_of(layout, own, 0.0), fill_of(number)
            for step, measures in enumerate(columns):
                moved = own.moved(right=STRIDE * (step + 1))
                found = extend(world, camera_of(own, moved), fill, step)
                known = ~found.made
                if known.all():
                    continue
                truth = _render(layout, moved, len(known))
                values = measures_in_holes(found.view, truth, known)
                values["bias"] = float((found.view.depth / truth.depth).log()[~known].mean())
                for measure, value in values.items():
                    measures[measure].append(value)
        for step, measures in enumerate(columns):
            pictures = len(next(iter(measures.values()), []))
            yield {"name": name, "step": step + 1, "pictures": pictures, **_numbers(measures)}


def world_of(layout: SceneLayout, own: SceneCamera, edge_threshold: float) -> World:
    """A world that knows what the scene's own camera sees."""
    world = World(edge_threshold=edge_threshold, softness=0 if edge_threshold else 2)
    camera = Camera(Pose(torch.eye(3), torch.zeros(3)), own.intrinsics()[0])
    world.add(camera, _render(layout, own, NANO_SIZE))
    return world


def camera_of(own: SceneCamera, moved: SceneCamera) -> Camera:
    """A moved camera in the axes of the scene's own."""
    place = torch.linalg.inv(own.pose()[0].double()) @ moved.pose()[0].double()
    return Camera(Pose(place[:3, :3].float(), place[:3, 3].float()), moved.intrinsics()[0])


def _render(layout: SceneLayout, camera: SceneCamera, size: int) -> Filled:
    color, depth = render(layout, size, camera=camera)
    return Filled(rearrange(color, "1 c h w -> h w c").contiguous(), depth[0])


def _methods(pipeline: Pipeline, seen: Seen, seed: int) -> dict[str, Callable[[], Filled]]:
    usual = FillSettings(seed=seed)

    def filled(settings: FillSettings) -> Filled:
        return PipelineFill(pipeline, settings)(seen)

    return {
        "background": seen.as_it_is,
        "RGB alone, then image to depth": partial(_picture_first, pipeline, seen, seed),
        "both streams": partial(filled, replace(usual, depth_steps=0)),
        "both streams, from pure noise": partial(filled, replace(usual, noise=1.0, depth_steps=0)),
        "both streams, depth once more": partial(filled, usual),
        "both streams from 0.4, depth once more": partial(filled, replace(usual, noise=0.4)),
        "both streams, resampled, depth once more": partial(filled, replace(usual, resample=1)),
    }


def _picture_first(pipeline: Pipeline, seen: Seen, seed: int) -> Filled:
    """What inpainting and a depth estimator do: RGB from noise beside depth that is noise, cells without a hole held;
    then the picture's depth, scaled to the median of what is known."""
    filler = PipelineFill(pipeline, FillSettings(seed=seed))
    hold, (height, width) = filler.hold(seen), seen.known.shape
    grid = height // PATCH_SIZE, width // PATCH_SIZE
    text, schedule = pipeline.features([""]), pipeline.model.schedule
    falling = PathSpec("tilt", log2_alpha=0.0).build(filler.path.steps, schedule).rgb

    def held(clean: Streams) -> Streams:
        return Streams(latents_to_tokens(hold.correct_rgb(tokens_to_latents(clean.rgb, grid))), clean.depth)

    rgb, _ = sample(
        pipeline.model, text, grid, path=NoisePath(falling, [1.0] * len(falling)), cfg=1.0, seed=[seed], correct=held
    )  # fmt: skip
    view = seen.finished(filler.decode(tokens_to_latents(rgb, grid)), seen.depth)
    tokens = latents_to_tokens(filler.encode(view.color))
    _, maps = sample(pipeline.model, text, grid, mode="i2d", path=filler.depth_path, cfg=1.0, rgb=tokens, seed=[seed])
    depth = decode_depth(tokens_to_patches(maps, grid))[0].cpu()
    scale = (seen.depth / depth)[seen.known].nanmedian()
    return seen.finished(view.color, (depth * scale).nan_to_num(float(seen.depth.median())))


def measures_in_holes(view: Filled, truth: Filled, known: Tensor) -> dict[str, float]:
    """The measures of a view against the true one where it is not known, (H, W) bool; see the head of this module."""
    holes = ~known
    error = (view.color - truth.color).square().mean(-1)[holes].mean()
    return {
        "psnr": float(-10 * error.clamp(min=1e-12).log10()),
        "sharpness": _steepness(view.color, holes) / max(_steepness(truth.color, holes), 1e-6),
        "absrel": float(((view.depth - truth.depth).abs() / truth.depth)[holes].mean()),
        "seam": _seam(view.depth.log(), truth.depth.log(), known),
    }


def _steepness(color: Tensor, holes: Tensor) -> float:
    """Mean of the largest steps between horizontal neighbors that both lie in holes."""
    steps = color.diff(dim=1).abs().mean(-1)[holes[:, 1:] & holes[:, :-1]]
    return float(steps.topk(max(1, round(_EDGES * len(steps)))).values.mean()) if len(steps) else 0.0


def _seam(log_depth: Tensor, true_log_depth: Tensor, known: Tensor) -> float:
    errors = []
    for axis in (0, 1):
        across = known.float().diff(dim=axis) != 0
        errors.append((log_depth.diff(dim=axis) - true_log_depth.diff(dim=axis)).abs()[across])
    return float(torch.cat(errors).mean())


def _numbers(measures: dict[str, list[float]]) -> dict[str, Any]:
    estimates = {name: intervals.mean(torch.tensor(values)) for name, values in measures.items()}
    medians = {f"{name}_median": float(torch.tensor(values).median()) for name, values in measures.items()}
    return intervals.as_json(estimates) | medians
