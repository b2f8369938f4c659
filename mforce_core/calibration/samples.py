"""Samples for the calibration of a model: its own pictures and depth, with noise on them, in all three tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..model.config import Distilled
from ..model.transformer import ModalityForcingTransformer
from ..release import CFG, GUIDANCE, LOG2_ALPHA, MODES, Mode
from ..sampling.path import NoisePath
from ..sampling.path_spec import PathSpec
from ..sampling.rollout import sample
from ..settings import FAST_SAMPLER, FAST_STEPS

#: How a model is run that does not say it; with the guidance of the release.
_USUAL = Distilled(FAST_STEPS, f"tilt log2_alpha={LOG2_ALPHA:g}", FAST_SAMPLER)
#: Levels of a path at which a picture is a sample, at most; as many are drawn beside the path.
_LEVELS = 4
#: Tokens of a batch.
_TOKENS = 4096


class CalibrationSample(NamedTuple):
    """Noisy tokens (B, N, C), text features (B, T, C) and noise levels (B,) of one call of the model, on the CPU."""

    mode: Mode
    rgb: Tensor
    depth: Tensor
    text: Tensor
    t_rgb: Tensor
    t_depth: Tensor


def calibration_samples(
    model: ModalityForcingTransformer,
    text: Tensor,
    null_text: Tensor,
    grid: tuple[int, int],
    distilled: Distilled | None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[CalibrationSample]:
    """Let a model make pictures with their depth as it is to be run, and put noise on them.

    Each comes at noise levels of its path, and at others that are drawn evenly, so that what is gathered holds for
    other numbers of steps, too.

    Args:
        text: features (P, T, C) of prompts; a prompt's number is its seed.
        null_text: (1, T, C) of the empty one.
        distilled: how the model is to be run; None: in the steps of the fast setting, with guidance.
        progress: called with (prompts, all of them) after pictures are made; what it raises ends the run.
    """
    way, scale = (_USUAL, CFG["joint"]) if distilled is None else (distilled, 1.0)
    specs = {mode: way.path if mode == "joint" else mode for mode in MODES}
    paths = {mode: PathSpec.parse(spec).build(way.steps_of(mode), model.schedule) for mode, spec in specs.items()}
    generator = torch.Generator().manual_seed(0)
    for rows in torch.arange(len(text)).split(max(1, _TOKENS // (text.shape[1] + 2 * grid[0] * grid[1]))):
        prompts, empty = text[rows], null_text.expand(len(rows), -1, -1)
        made = sample(
            model,
            prompts,
            grid,
            cfg=scale,
            null_text=null_text,
            path=paths["joint"],
            solver=way.sampler,
            seed=rows.tolist(),
            guidance=GUIDANCE if model.config.use_guidance_embed else None,
        )
        rgb, depth = (stream.cpu() for stream in made)
        if progress is not None:
            progress(int(rows[-1]) + 1, len(text))
        if scale > 1:  # guidance runs the model on the empty prompt, too
            prompts = torch.where((rows % 2 == 0)[:, None, None], prompts.cpu(), empty.cpu())
        for mode, path in paths.items():
            for times in _times(mode, path, len(rows), generator):
                t_rgb, t_depth = times
                noisy_rgb, noisy_depth = (
                    torch.lerp(clean, torch.randn(clean.shape, generator=generator), t[:, None, None])
                    for clean, t in ((rgb, t_rgb), (depth, t_depth))
                )
                words = empty if mode == "i2d" else prompts
                yield CalibrationSample(mode, noisy_rgb, noisy_depth, words.cpu(), t_rgb, t_depth)


def _times(mode: Mode, path: NoisePath, rows: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Noise levels (2, rows) of both streams, on the path and beside it."""
    every = path.levels[:-1]
    chosen = dict.fromkeys(every[number * len(every) // _LEVELS] for number in range(_LEVELS))
    for levels in chosen:
        yield torch.tensor(levels)[:, None].expand(2, rows)
        beside = torch.rand(2, rows, generator=generator)
        if mode != "joint":
            beside[0 if mode == "i2d" else 1] = 0
        yield beside
