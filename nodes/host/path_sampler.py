"""A SAMPLER for core's guiders that steps each stream on its own noise levels.

Relies on: ``comfy.samplers`` (Sampler, KSamplerX0Inpaint, which mixes in what a noise mask keeps),
``comfy.utils.pack_latents`` and the key ``seed`` of a guider's extra arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.samplers
import comfy.utils
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...mforce_core.model.block_cache import BlockCache
from ...mforce_core.model.config import Schedule
from ...mforce_core.sampling.guidance import Prediction
from ...mforce_core.sampling.integrate import Given, integrate
from ...mforce_core.sampling.noise import NoiseSource
from ...mforce_core.sampling.path import PURE_NOISE, NoisePath
from ...mforce_core.sampling.solvers import Streams
from .clocks import Clocks
from .comfy_transformer import CACHE_OPTION
from .joint_model import JointDiffusion
from .path_plan import PathPlan
from .picture_noise import SEEDS

_NAMES = ("the picture", "the depth")


class PathSampler(comfy.samplers.Sampler):
    """Steps along a path. The run's model takes both noise levels from ``clocks`` (`.sampler_wrappers.around_run`).

    Args:
        plan: noise levels of both streams, and the solver.
        seeds: of the noise that is added on the way, one a picture; by default they count on from the run's.
    """

    def __init__(self, plan: PathPlan, seeds: Sequence[int] | None = None) -> None:
        self.plan, self.seeds = plan, seeds
        self.clocks = Clocks.of(plan.path)

    def on(self, schedule: Schedule) -> PathSampler:
        """This sampler on a model's schedule, where its path has none of its own."""
        return PathSampler(self.plan.on(schedule), self.seeds)

    @property
    def sigmas(self) -> Tensor:
        """The SIGMAS that take the whole path."""
        return self.clocks.sigmas

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """The packed clean latent (B, 1, L) from packed noise and content; the arguments are core's.

        Raises:
            ValueError: the model has no two streams, or the path starts from content that is not there.
        """
        if not isinstance(model_wrap.inner_model, JointDiffusion):
            raise ValueError("a path needs a Modality Forcing model; load one with Load MF Model.")
        shapes = model_wrap.inner_model.latent_shapes
        rgb, depth = (tuple(level.tolist()) for level in self.clocks.levels(sigmas))
        path = NoisePath(rgb, depth)
        content = torch.zeros_like(noise) if latent_image is None else latent_image
        kept = _kept(content, denoise_mask, shapes)
        inpainted = comfy.samplers.KSamplerX0Inpaint(model_wrap, sigmas)
        inpainted.latent_image, inpainted.noise = latent_image, noise
        shown = [torch.zeros_like(noise), noise]

        def predict(state: Streams, number: int) -> Prediction:
            x = _pack(state)
            clean = inpainted(x, sigmas[number].expand(len(x)), denoise_mask, **extra_args)
            shown[:] = clean, x
            rgb, depth = _unpack(clean, shapes)
            return Prediction(_velocity(state.rgb, rgb, path.rgb[number]), depth)

        extra_args = self._with_cache(extra_args)
        with tqdm(total=path.steps, disable=disable_pbar) as bar:

            def report(step: int, steps: int, _rgb: Tensor, _depth: Tensor) -> None:
                bar.update()
                if callback is not None:
                    callback(step - 1, *shown, steps)

            state = _start(noise, content, path, kept, shapes)
            fresh = self._fresh(extra_args.get("seed"), state).like
            state = integrate(predict, state, path, given=kept, solver=self.plan.solver, fresh=fresh, callback=report)
        return _pack(_to_go_on(state, kept, path))

    def _with_cache(self, extra_args: dict[str, Any]) -> dict[str, Any]:
        """A run's extra arguments with a block cache of its own, where one is asked for."""
        if not self.plan.block_cache:
            return extra_args
        options = extra_args.get("model_options", {})
        transformer_options = {
            **options.get("transformer_options", {}),
            CACHE_OPTION: BlockCache(self.plan.block_cache),
        }
        return {**extra_args, "model_options": {**options, "transformer_options": transformer_options}}

    def _fresh(self, seed: int | None, state: Streams) -> NoiseSource:
        """The noise that is added on the way, of each picture as if it were alone."""
        counted = [((seed or 0) + place) % SEEDS for place in range(len(state.rgb))]
        source = NoiseSource(counted if self.seeds is None else self.seeds)
        for stream in state:  # the noise of the start is drawn from these seeds, too
            source.draw(stream.shape)
        return source


def _start(noise: Tensor, content: Tensor, path: NoisePath, kept: Given, shapes: Any) -> Streams:
    """The first state; of a stream that is kept the noise that it is mixed with."""
    first = []
    streams = zip(_NAMES, _unpack(noise, shapes), _unpack(content, shapes), kept, path.levels[0], strict=True)
    for name, eps, clean, whole, level in streams:
        if level < PURE_NOISE and not clean.any():
            raise ValueError(
                f"the path starts with {name} at noise level {level:g}, and the latent has none: connect a latent that"
                f" holds {name}, or choose a path that starts from noise."
            )
        first.append(eps if whole is not None else level * eps + (1 - level) * clean)
    return Streams(*first)


def _to_go_on(state: Streams, kept: Given, path: NoisePath) -> Streams:
    """The result of a part of a path, as core's samplers of flow models leave it: run on from it without noise."""
    streams = zip(state, kept, path.levels[-1], strict=True)
    return Streams(*(x / (1 - level) if whole is None and level < 1 else x for x, whole, level in streams))


def _kept(content: Tensor, denoise_mask: Tensor | None, shapes: Any) -> Given:
    """The streams that the mask keeps as a whole."""
    if denoise_mask is None:
        return Given()
    masks, streams = _unpack(denoise_mask, shapes), _unpack(content, shapes)
    return Given(*(None if mask.any() else clean for mask, clean in zip(masks, streams, strict=True)))


def _velocity(x: Tensor, clean: Tensor, level: float) -> Tensor:
    return (x - clean) / level if level else torch.zeros_like(x)


def _unpack(packed: Tensor, shapes: Any) -> list[Tensor]:
    return list(comfy.utils.unpack_latents(packed, shapes))


def _pack(streams: Streams) -> Tensor:
    return comfy.utils.pack_latents(list(streams))[0]
