"""Filling the holes of views with a loaded pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from einops import rearrange
from torch import Tensor

from ..model.tokens import latents_to_tokens, tokens_to_latents
from ..pipeline import Pipeline
from ..release import PATCH_SIZE, Mode
from ..sampling.path import NoisePath
from ..sampling.path_spec import PathSpec
from ..sampling.rollout import sample
from ..sampling.solvers import Streams
from ..settings import DEPTH_STEPS, FILL_NOISE, FILL_STEPS
from .hold import Hold, fill_path
from .view import Filled, Seen


@dataclass(frozen=True)
class FillSettings:
    """How holes are filled.

    Attributes:
        prompt: what the scene shows; without one there is no guidance.
        cfg: scale of guidance towards the prompt; None: the release's, or none for a model of few steps.
        seed: of the first view; those of the others count on.
        steps: in which both streams are made; None: 10, or those of a model of few steps.
        noise: level at which they start from the background, 0 to 1.
        resample: how many times the first half of the steps is taken again from new noise.
        depth_steps: in which the depth is made once more from the finished picture; 0 keeps that of the first pass,
            None: 4, or those of a model of few steps.
    """

    prompt: str = ""
    cfg: float | None = None
    seed: int = 0
    steps: int | None = None
    noise: float = FILL_NOISE
    resample: int = 0
    depth_steps: int | None = None


class PipelineFill:
    """A `.walk.Fill` on a pipeline.

    Args:
        pipeline: loaded.
        settings: of the filling.
        progress: called after every step of a rollout; what it raises ends the filling.

    Attributes:
        settings: with the numbers of steps that the model takes.
    """

    def __init__(self, pipeline: Pipeline, settings: FillSettings, progress: Callable[[], None] | None = None) -> None:
        few = pipeline.distilled
        steps, depth_steps = (FILL_STEPS, DEPTH_STEPS) if few is None else (few.steps, few.steps_of("i2d"))
        steps = steps if settings.steps is None else settings.steps
        depth_steps = depth_steps if settings.depth_steps is None else settings.depth_steps
        self.pipeline, self.progress = pipeline, progress
        self.settings = replace(settings, steps=steps, depth_steps=depth_steps)
        self.cfg = pipeline.job("joint", settings.prompt, cfg=settings.cfg).cfg if settings.prompt else 1.0
        schedule = pipeline.model.schedule
        self.path = fill_path(settings.noise, settings.resample).build(steps, schedule)
        self.depth_path = PathSpec("i2d").build(depth_steps, schedule) if depth_steps else None

    @property
    def steps(self) -> int:
        """Steps that one view takes."""
        return self.path.steps + (self.depth_path.steps if self.depth_path else 0)

    @torch.no_grad()
    def __call__(self, seen: Seen, number: int = 0) -> Filled:
        """Fill a view, sides multiples of 16.

        Raises:
            ValueError: another size.
        """
        height, width = seen.known.shape
        if height % PATCH_SIZE or width % PATCH_SIZE:
            raise ValueError(f"the view is {width}x{height}; both sides must be multiples of {PATCH_SIZE}.")
        grid = height // PATCH_SIZE, width // PATCH_SIZE
        hold = self.hold(seen)
        seed = self.settings.seed + number
        depth = latents_to_tokens(hold.depth_latents())

        def both(clean: Streams) -> Streams:
            rgb, maps = (tokens_to_latents(stream, grid) for stream in clean)
            return Streams(latents_to_tokens(hold.correct_rgb(rgb)), latents_to_tokens(hold.correct_depth(maps)))

        def depth_alone(clean: Streams) -> Streams:
            maps = tokens_to_latents(clean.depth, grid)
            return Streams(clean.rgb, latents_to_tokens(hold.correct_depth(maps)))

        run = partial(self._run, grid=grid, seed=seed)
        rgb, maps = run(self.settings.prompt, "joint", self.path, latents_to_tokens(hold.rgb), depth, both)
        color = self.decode(tokens_to_latents(rgb, grid))
        view = seen.finished(color, self._depth(hold, maps, grid))
        if self.depth_path is not None:
            rgb = latents_to_tokens(self.encode(view.color))
            _, maps = run("", "i2d", self.depth_path, rgb, depth, depth_alone)
            view = seen.finished(color, self._depth(hold, maps, grid))
        return view

    def _run(
        self,
        prompt: str,
        mode: Mode,
        path: NoisePath,
        rgb: Tensor,
        depth: Tensor,
        correct: Callable[[Streams], Streams],
        *,
        grid: tuple[int, int],
        seed: int,
    ) -> tuple[Tensor, Tensor]:
        return sample(
            self.pipeline.model,
            self.pipeline.features([prompt]),
            grid,
            mode=mode,
            path=path,
            cfg=self.cfg if mode == "joint" else 1.0,
            null_text=self.pipeline.features([""]),
            rgb=rgb,
            depth=depth,
            seed=[seed],
            guidance=self.pipeline.settings.guidance,
            callback=lambda *_: None if self.progress is None else self.progress(),
            correct=correct,
        )

    def hold(self, seen: Seen) -> Hold:
        """What the rollouts of a view hold."""
        return Hold.of(seen, self.encode(seen.color))

    def encode(self, color: Tensor) -> Tensor:
        """Latents (1, C, h, w) of a picture (H, W, 3) in [0, 1]."""
        image = rearrange(color, "h w c -> 1 c h w").to(self.pipeline.device, torch.float32)
        return self.pipeline.autoencoder.encode(image * 2 - 1).float()

    def decode(self, latents: Tensor) -> Tensor:
        """The picture of latents, on the CPU."""
        image = self.pipeline.autoencoder.decode(latents.contiguous()).float().clamp(-1, 1) / 2 + 0.5
        return rearrange(image, "1 c h w -> h w c").cpu()

    def _depth(self, hold: Hold, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return hold.depth_of(tokens_to_latents(tokens, grid))[0].cpu()
