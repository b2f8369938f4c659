"""Noise that samplers add while they run, drawn picture by picture, so that none depends on its neighbors in a batch.

Core draws it for the whole batch from one seed. Here picture i gets what core draws for a batch of one with that
picture's own seed.

Relies on: ``KSAMPLER`` of ``comfy.samplers`` (sampler_function, inpaint_options and the ``noise`` of the model it hands
on), and the argument ``noise_sampler`` of the functions of ``comfy.k_diffusion.sampling``, whose defaults it repeats.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler
from torch import Tensor

#: Seeds are 64-bit numbers; a batch counts on from 0 after the last.
SEEDS = 1 << 64

#: Functions of core whose default noise is that of a Brownian tree; the others' is independent from step to step.
_BROWNIAN = ("sample_dpmpp_sde", "sample_dpmpp_2m_sde", "sample_dpmpp_2m_sde_heun", "sample_dpmpp_3m_sde")
_ON_THE_GPU = "_gpu"

NoiseSampler = Callable[[Tensor, Tensor], Tensor]


def with_picture_noise(sampler: Any, seeds: Sequence[int]) -> Any:
    """A core sampler that draws noise for every picture of a batch from its own seed.

    Args:
        sampler: from ``comfy.samplers.sampler_object``.
        seeds: one a picture.
    """
    function = sampler.sampler_function
    takes_noise = "noise_sampler" in inspect.signature(function).parameters

    @wraps(function)
    def sample(model: Any, x: Tensor, sigmas: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if sampler.inpaint_options.get("random", False):
            draws = [_draw(x[:1].shape, _next(seed), torch.device("cpu")) for seed in seeds]
            model.noise = torch.cat(draws).to(model.noise)
        if takes_noise and len(sigmas) > 1:
            kwargs["noise_sampler"] = _noise_sampler(function.__name__, x, sigmas, seeds)
        return function(model, x, sigmas, *args, **kwargs)

    return type(sampler)(sample, sampler.extra_options, sampler.inpaint_options)


def _noise_sampler(name: str, x: Tensor, sigmas: Tensor, seeds: Sequence[int]) -> NoiseSampler:
    """What a sampler function of core makes for itself, one for each picture."""
    one = x[:1]
    if name.removesuffix(_ON_THE_GPU) in _BROWNIAN:
        ends = sigmas[sigmas > 0].min(), sigmas.max()
        on_cpu = not name.endswith(_ON_THE_GPU)
        samplers = [BrownianTreeNoiseSampler(one, *ends, seed=seed, cpu=on_cpu) for seed in seeds]
    else:
        samplers = [_independent_noise(one, seed) for seed in seeds]
    return lambda sigma, sigma_next: torch.cat([draw(sigma, sigma_next) for draw in samplers])


def _independent_noise(one: Tensor, seed: int) -> NoiseSampler:
    # On a CPU the starting noise has taken the seed itself.
    generator = torch.Generator(one.device).manual_seed(_next(seed) if one.device.type == "cpu" else seed)
    return lambda sigma, sigma_next: torch.randn(one.shape, dtype=one.dtype, device=one.device, generator=generator)


def _draw(shape: Sequence[int], seed: int, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def _next(seed: int) -> int:
    return (seed + 1) % SEEDS
