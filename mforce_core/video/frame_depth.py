"""Depth of frames by a loaded model, all of them from one noise."""

from __future__ import annotations

import torch
from torch import Tensor

from ..depth.codec import decode_depth, encode_depth, fill_missing
from ..model.tokens import latents_to_tokens, patches_to_tokens, tokens_to_patches
from ..pipeline import Pipeline
from ..release import PATCH_SIZE
from ..rollout_settings import check_guidance, guidance_of
from ..sampling.noise import draw_noise
from ..sampling.rollout import sample
from ..settings import Settings
from .going_on import path_from


class FrameDepth:
    """Makes depth of pictures, see `.steady.DepthOf`.

    Args:
        pipeline: the model.
        job: settings of image to depth, from ``pipeline.job``: prompt, seed, steps, sampler, guidance and size.

    Raises:
        ValueError: the model embeds a guidance scale, and the settings have none.
    """

    def __init__(self, pipeline: Pipeline, job: Settings) -> None:
        check_guidance(pipeline.model.config, job)
        self.pipeline, self.job = pipeline, job
        width, height = job.canvas
        self.grid = height // PATCH_SIZE, width // PATCH_SIZE
        config, tokens = pipeline.model.config, self.grid[0] * self.grid[1]
        shapes = (1, tokens, config.in_channels), (1, tokens, config.depth_channels)
        self.noise = draw_noise(*shapes, job.seed)
        self.text = pipeline.features([job.prompt])

    @torch.no_grad()
    def __call__(self, pictures: Tensor, start: Tensor | None = None, level: float = 1.0) -> Tensor:
        """Depth maps (B, H, W) of pictures (B, 3, H, W) in [0, 1]."""
        pipeline, count = self.pipeline, len(pictures)
        rgb_noise, depth_noise = (noise.expand(count, -1, -1) for noise in self.noise)
        latents = pipeline.autoencoder.encode(pictures.to(pipeline.device, torch.float32) * 2 - 1)
        content = None
        if start is not None and start.isfinite().flatten(1).any(1).all():
            content = fill_missing(patches_to_tokens(encode_depth(start)), depth_noise)
        schedule = pipeline.model.schedule
        spec, steps = path_from(1.0 if content is None else level, self.job.steps, schedule)
        _, depth = sample(
            pipeline.model,
            self.text.expand(count, -1, -1),
            self.grid,
            mode="i2d",
            cfg=guidance_of(self.job),
            null_text=pipeline.features([""]),
            rgb=latents_to_tokens(latents).float(),
            depth=content,
            noise=(rgb_noise, depth_noise),
            seed=[self.job.seed] * count,
            guidance=self.job.guidance,
            path=spec.build(steps, schedule),
            solver=self.job.sampler,
            cuda_graph=self.job.cuda_graph,
        )
        return decode_depth(tokens_to_patches(depth, self.grid)).cpu()
