"""Image to depth several times over: the median of maps from different noise, and where they disagree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange

from .batch import Progress
from .depth.ensemble import combine
from .inputs import Given
from .settings import Settings

#: Maps that are sampled together, and how far apart their seeds are: farther than those of a `--count`, and within 32
#: bits, since PyTorch seeds its generator of the CPU with the lower half alone.
_TOGETHER = 8
_NEXT_MEMBER = 1_000_003

#: Pictures and depth maps of a batch of jobs, as :func:`.batch.sample_batch` gives them.
Sample = Callable[[Sequence[Settings], Sequence[Given], Progress | None], tuple[np.ndarray | None, np.ndarray | None]]


def sample_ensembles(
    sample: Sample, jobs: Sequence[Settings], givens: Sequence[Given], progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """Medians (B, H, W) of as many depth maps of every picture as the jobs ask for, and their spread (B, H, W).

    Args:
        sample: of one map for every job, with a seed of its own.
        jobs: of image to depth, that differ in prompt, seed and input alone.
        givens: what each is given.
        progress: called after every step, with all steps of all maps.
    """
    first = jobs[0]
    members = [
        (replace(job, seed=(job.seed + number * _NEXT_MEMBER) % 2**64), given)
        for job, given in zip(jobs, givens, strict=True)
        for number in range(first.ensemble)
    ]
    batches = [members[start : start + _TOGETHER] for start in range(0, len(members), _TOGETHER)]
    parts: list[np.ndarray] = []
    for batch in batches:

        def advance(step: int, steps: int) -> None:
            if progress is not None:
                progress(len(parts) * steps + step, len(batches) * steps)

        _, maps = sample([job for job, _ in batch], [given for _, given in batch], advance)
        assert maps is not None
        parts.append(maps)
    drawn = rearrange(torch.from_numpy(np.concatenate(parts)), "(b k) h w -> b k h w", k=first.ensemble)
    ensembles = [combine(maps, shift=first.align_shift) for maps in drawn]
    depth, spread = (torch.stack(stack).numpy() for stack in zip(*ensembles, strict=True))
    return depth, spread
