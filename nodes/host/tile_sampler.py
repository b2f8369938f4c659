"""Depth of tiles by core's samplers, as ``mforce_core.full_size`` asks for it.

Relies on: ``VAE.encode`` and what `.core_sampler` relies on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...mforce_core.depth.codec import decode_depth, mean_depth
from ...mforce_core.full_size.tile_model import on_grid, tile_path, tile_steps
from ...mforce_core.model.tokens import latents_to_patches
from .core_sampler import IMAGE_TO_DEPTH, Settings, Task, run
from .joint_latent import freeze_mask
from .path_plan import PathPlan
from .starting_noise import noise_and_depth, picture_seeds

#: Tiles that are encoded together, so that model and VAE change places in memory once for all of them.
ENCODED_TOGETHER = 16


class TileSampler:
    """Image to depth of tiles, from depth at a part of the noise; tile i has the noise of seed + i.

    Args:
        model, positive, vae: as MF Sampler and MF Image to Depth Latent take them.
        strength: noise level to start from.
        steps: of a rollout from noise alone.
        seed: of the first tile.
        together: tiles that are sampled as one batch.
        report: called with every map (h, w) that is made.

    Raises:
        ValueError: a strength outside 0..1.
    """

    def __init__(
        self,
        model: Any,
        positive: Any,
        vae: Any,
        *,
        strength: float,
        steps: int,
        seed: int,
        together: int,
        report: Callable[[Tensor], None],
    ) -> None:
        self.model, self.positive, self.vae = model, positive, vae
        self.seed, self.together, self.report, self.number = seed, together, report, 0
        schedule = model.model.diffusion_model.schedule
        plan = PathPlan.of(tile_path(strength), tile_steps(steps, strength), "euler", schedule)
        self.settings = Settings(plan=plan)

    def __call__(self, pictures: Tensor, start: Tensor) -> Tensor:
        """Maps (B, h, w) of pictures (B, 3, h, w) in [0, 1], from maps (B, h, w)."""
        height, width = start.shape[1:]
        latents = self.vae.encode(on_grid(pictures).movedim(1, -1)).float().cpu()
        start = on_grid(start[:, None])[:, 0]
        made = [
            self._sample(rgb, depth)
            for rgb, depth in zip(latents.split(self.together), start.split(self.together), strict=True)
        ]
        return torch.cat(made)[:, :height, :width]

    def _sample(self, rgb: Tensor, start: Tensor) -> Tensor:
        seeds = picture_seeds(len(start), self.seed + self.number)
        self.number += len(start)
        noise, depth = noise_and_depth(rgb, start, seeds)
        mask = freeze_mask(rgb, depth, freeze_rgb=True, freeze_depth=False)
        task = Task(IMAGE_TO_DEPTH, rgb, depth, mask)
        _, made = run(self.model, self.positive, self.positive, task, noise, self.settings, seeds)
        maps = decode_depth(latents_to_patches(made.cpu().float())) * mean_depth(start).float()[:, None, None]
        for one in maps:
            self.report(one)
        return maps
