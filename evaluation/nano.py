"""Held-out evaluation of the built-in model on freshly rendered scenes: how right it is, and how it looks.

Errors of depth, after scaling by the median:

- ``i2d``: depth from the rendered image against the exact depth; ``i2d_edge``: the same in a band of 4 pixels at its
  edges; ``constant``: one depth everywhere, the baseline.
- ``joint``: depth sampled from the caption against i2d run on the image sampled with it.
- ``d2i``: i2d of the image made from the exact depth, against that depth.

How pictures look, each beside the same measure of rendered scenes:

- ``..._seam``: steps across token borders over steps inside tokens, of RGB or of log depth.
- ``..._grid``: of the mean steps at each of the 16 places along a token's width, the largest over their mean.
- ``..._sharpness``: edges inside tokens over those of renders. Blurring lowers it.
- ``sphere_roundness``: outline of a lone sphere against the circle of its area and center.
- ``shape_accuracy``, ``color_accuracy``: pictures of one object whose shape the judge, and whose color the dominant
  hue, names as the prompt does.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..mforce_core import decode_depth, encode_depth, load_autoencoder, load_model, load_text_encoder, sample
from ..mforce_core.model.config import Distilled
from ..mforce_core.model.tokens import latents_to_tokens, patches_to_tokens, tokens_to_latents, tokens_to_patches
from ..mforce_core.release import LOG2_ALPHA, NANO_SIZE, PATCH_SIZE, STEPS, Mode
from ..mforce_core.sampling.path_spec import PathSpec
from ..scenes import SceneLayout, captions, render, sample_layouts
from ..scenes.vocabulary import COLOR_HUES, COLORS, FLOORS, SHAPES
from . import intervals
from .appearance import column_steps, dominant_hue, object_mask, roundness, seam_steps, sharpness
from .intervals import Estimate
from .judge import ShapeJudge, load_judge, lone_objects
from .metrics import abs_rel, align_median, constant_depth, delta1, edge_band

GRID = (NANO_SIZE // PATCH_SIZE, NANO_SIZE // PATCH_SIZE)
BATCH = 32
HUES = torch.tensor(list(COLOR_HUES.values()))

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prompt:
    """A caption of one object, and what a picture of it must show (indices into the vocabulary)."""

    text: str
    color: int
    shape: int


def object_prompts(shapes: tuple[str, ...] = SHAPES) -> list[Prompt]:
    """Every color, shape and floor once; "a red sphere on a wooden floor"."""
    return [
        Prompt(
            f"{'an' if color[0] in 'aeiou' else 'a'} {color} {shape} on a {floor} floor", number, SHAPES.index(shape)
        )
        for number, color in enumerate(COLORS)
        for shape in shapes
        for floor in FLOORS
    ]


class Rollouts:
    """The model's three tasks at the evaluation's settings; counts denoising steps as they are done."""

    def __init__(
        self,
        model: Path,
        text_encoder: Path,
        autoencoder: Path,
        *,
        steps: int,
        distilled: Distilled | None,
        device: str,
        step: Callable[[], None],
    ) -> None:
        self.model = load_model(model, device=device, dtype=torch.float32)
        self._cfg: float | None = None
        self._solver = "euler"
        self._joint: dict[str, Any] = {"log2_alpha": LOG2_ALPHA}
        if distilled is not None:
            self._cfg, self._solver = 1.0, distilled.sampler
            self._joint = {"path": PathSpec.parse(distilled.path).build(steps, self.model.schedule)}
        self.text_encoder = load_text_encoder(text_encoder)
        self.autoencoder = load_autoencoder(autoencoder, device=device)
        self.steps, self.device, self._step = steps, device, step
        self._null = self.text_encoder.encode([""])

    def joint(self, prompts: list[str], seed: int) -> tuple[Tensor, Tensor]:
        """RGB tokens and depth maps (B, H, W)."""
        tokens, depth = self._run(self.text_encoder.encode(prompts), "joint", seed, **self._joint)
        return tokens, self._maps(depth)

    def image_to_depth(self, tokens: Tensor, seed: int) -> Tensor:
        """Depth maps (B, H, W) of RGB tokens."""
        return self._maps(self._run(self._null.expand(len(tokens), -1, -1), "i2d", seed, rgb=tokens)[1])

    def depth_to_image(self, depth: Tensor, prompts: list[str], seed: int) -> Tensor:
        """RGB tokens for depth maps (B, H, W)."""
        clean = patches_to_tokens(encode_depth(depth))
        return self._run(self.text_encoder.encode(prompts), "d2i", seed, depth=clean)[0]

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> RGB tokens."""
        return latents_to_tokens(self.autoencoder.encode(images.to(self.device) * 2 - 1))

    def decode(self, tokens: Tensor) -> Tensor:
        """RGB tokens -> pictures (B, 3, H, W) in [0, 1]."""
        return self.autoencoder.decode(tokens_to_latents(tokens, GRID)).clamp(-1, 1).cpu() / 2 + 0.5

    def _run(self, text: Tensor, mode: Mode, seed: int, **given: Any) -> tuple[Tensor, Tensor]:
        return sample(
            self.model,
            text,
            GRID,
            mode=mode,
            steps=self.steps,
            cfg=self._cfg,
            solver=self._solver,
            null_text=self._null,
            seed=seed,
            callback=lambda *_: self._step(),
            **given,
        )

    def _maps(self, tokens: Tensor) -> Tensor:
        return decode_depth(tokens_to_patches(tokens, GRID)).cpu()


class Columns:
    """Measures picture by picture: (B,) where their mean counts, bool where the share of True does, (B, 2) where the
    ratio of two means does, (B, N) where the largest of N means by their mean does."""

    def __init__(self) -> None:
        self._parts: defaultdict[str, list[Tensor]] = defaultdict(list)

    def add(self, name: str, values: Tensor) -> None:
        self._parts[name].append(values)

    def add_errors(self, name: str, prediction: Tensor, reference: Tensor) -> Tensor:
        """AbsRel and delta1 of relative depth (B, H, W); returns the aligned prediction."""
        aligned = align_median(prediction, reference)
        self.add(f"{name}_absrel", abs_rel(aligned, reference))
        self.add(f"{name}_delta1", delta1(aligned, reference))
        return aligned

    def add_look(self, name: str, maps: Tensor, rendered: Tensor) -> None:
        """Seams, grid and sharpness of pictures, or of log depth, (B, ..., H, W); sharpness beside that of renders."""
        self.add(f"{name}_seam", seam_steps(maps))
        self.add(f"{name}_grid", column_steps(maps))
        self.add(f"{name}_sharpness", torch.stack((sharpness(maps), sharpness(rendered)), dim=1))

    def estimates(self) -> dict[str, Estimate]:
        columns = {name: torch.cat(parts) for name, parts in self._parts.items()}
        return {name: _estimate(values) for name, values in columns.items()}


def _estimate(values: Tensor) -> Estimate:
    if values.dtype == torch.bool:
        return intervals.share(values)
    if values.ndim == 1:
        return intervals.mean(values)
    return intervals.ratio(values) if values.shape[1] == 2 else intervals.unevenness(values)


def evaluate_nano(
    model_path: Path,
    text_encoder_path: Path,
    autoencoder_path: Path,
    *,
    scenes: int = 256,
    seed: int = 1_000_000,
    steps: int = STEPS,
    distilled: Distilled | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a small model.

    Args:
        model_path, text_encoder_path, autoencoder_path: files or folders; the text encoder is one of words.
        scenes: number of held-out scenes; half as many pictures of a lone sphere are made, and rendered beside them.
        seed: of the scenes and of every starting noise; training uses small seeds.
        steps: of every rollout, Euler's where the model asks for no other solver.
        distilled: of a model of few steps, which runs on its own path without guidance.
        progress: called with (finished, all) denoising steps.

    Returns:
        Metric name -> value, and ``intervals``: metric name -> [low, high], 95%, see `intervals`.
    """
    spheres = max(1, scenes // 2)
    total = steps * (5 * _batches_of(scenes) + _batches_of(len(object_prompts())) + _batches_of(spheres))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    run = Rollouts(
        model_path, text_encoder_path, autoencoder_path, steps=steps, distilled=distilled, device=device, step=step
    )
    judge, columns = load_judge(), Columns()
    layout = sample_layouts(scenes, seed)
    for rows in torch.arange(scenes).split(BATCH):
        _measure_scenes(run, columns, layout[rows], seed)
    prompts = object_prompts()
    for rows in torch.arange(len(prompts)).split(BATCH):
        _measure_prompts(run, columns, judge, [prompts[i] for i in rows], seed)
    round_prompts = object_prompts(("sphere",))
    wanted = [round_prompts[i % len(round_prompts)] for i in range(spheres)]
    for number, rows in enumerate(torch.arange(spheres).split(BATCH)):
        _measure_spheres(run, columns, [wanted[i] for i in rows], seed + number)
    _measure_renders(columns, judge, spheres, seed)
    return intervals.as_json(columns.estimates()) | {"scenes": scenes, "spheres": spheres, "steps": steps, "seed": seed}


def _measure_scenes(run: Rollouts, columns: Columns, layout: SceneLayout, seed: int) -> None:
    """All three tasks on rendered scenes."""
    rendered, reference = render(layout, NANO_SIZE)
    prompts = captions(layout)
    tokens = run.encode(rendered)
    predicted = run.image_to_depth(tokens, seed)
    aligned = columns.add_errors("i2d", predicted, reference)
    columns.add("i2d_edge_absrel", abs_rel(aligned, reference.where(edge_band(reference), torch.nan)).nan_to_num(0.0))
    columns.add_errors("constant", constant_depth(reference), reference)
    columns.add_look("i2d", predicted.log(), reference.log())

    joint_tokens, joint_depth = run.joint(prompts, seed)
    columns.add_errors("joint", joint_depth, run.image_to_depth(joint_tokens, seed))
    columns.add_look("joint", joint_depth.log(), reference.log())
    columns.add_look("rgb", run.decode(joint_tokens), rendered)
    columns.add_look("autoencoder", run.decode(tokens), rendered)

    made = run.depth_to_image(reference, prompts, seed)
    columns.add_errors("d2i", run.image_to_depth(made, seed), reference)
    columns.add("renders_rgb_seam", seam_steps(rendered))
    columns.add("renders_depth_seam", seam_steps(reference.log()))
    columns.add("renders_rgb_grid", column_steps(rendered))
    columns.add("renders_depth_grid", column_steps(reference.log()))


def _measure_prompts(run: Rollouts, columns: Columns, judge: ShapeJudge, prompts: list[Prompt], seed: int) -> None:
    """Whether pictures of one object show the shape and the color that their prompts name."""
    images = run.decode(run.joint([prompt.text for prompt in prompts], seed)[0])
    named = judge.shapes(images)
    hues = [dominant_hue(image, HUES) for image in images]
    columns.add("shape_accuracy", named == torch.tensor([prompt.shape for prompt in prompts]))
    columns.add("color_accuracy", torch.tensor([hue == p.color for hue, p in zip(hues, prompts, strict=True)]))


def _measure_spheres(run: Rollouts, columns: Columns, prompts: list[Prompt], seed: int) -> None:
    images = run.decode(run.joint([prompt.text for prompt in prompts], seed)[0])
    columns.add("sphere_roundness", _roundness(images, [prompt.color for prompt in prompts]))


def _measure_renders(columns: Columns, judge: ShapeJudge, count: int, seed: int) -> None:
    """What a perfect model would score."""
    spheres, solids = lone_objects(count, seed, "sphere"), lone_objects(count, seed)
    columns.add("renders_sphere_roundness", _roundness(render(spheres, NANO_SIZE)[0], spheres.color[:, 0].tolist()))
    columns.add("renders_shape_accuracy", judge.shapes(render(solids, NANO_SIZE)[0]) == solids.shape[:, 0])


def _roundness(images: Tensor, colors: list[int]) -> Tensor:
    masks = (object_mask(image, HUES, color) for image, color in zip(images, colors, strict=True))
    return torch.tensor([roundness(mask) for mask in masks])


def _batches_of(count: int) -> int:
    return -(-count // BATCH)
