"""A batch of runs through the networks: pictures and depth maps in, as arrays, and what was made of them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from .depth.codec import decode_depth, encode_depth, fill_missing
from .inputs import Given
from .model.block_cache import BlockCache
from .model.tokens import latents_to_tokens, patches_to_tokens, tokens_to_latents, tokens_to_patches
from .networks import Autoencoder, Networks
from .release import CFG, PATCH_SIZE
from .rollout_settings import guidance_of, path_of
from .sampling.noise import draw_noise
from .sampling.path_spec import PathSpec
from .sampling.rollout import sample
from .settings import Settings

#: progress(step, steps) after every denoising step.
Progress = Callable[[int, int], None]


def sample_batch(
    networks: Networks, jobs: Sequence[Settings], givens: Sequence[Given], progress: Progress | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Pictures (B, H, W, 3) uint8 and depth maps (B, H, W), None where they are given.

    Args:
        networks: with the features and the guidance scale of the jobs.
        jobs: that differ in prompt, seed and input alone.
        givens: what each is given, on its canvas.
        progress: called after every step.

    Raises:
        ValueError: what was made is no picture or no depth.
    """
    first, model = jobs[0], networks.model
    width, height = first.canvas
    grid = height // PATCH_SIZE, width // PATCH_SIZE
    shapes = [(1, grid[0] * grid[1], channels) for channels in (model.config.in_channels, model.config.depth_channels)]
    seeds = [job.seed for job in jobs]
    noise = draw_noise(shapes[0], shapes[1], seeds)
    pictures = [given.rgb for given in givens if given.rgb is not None]
    measured = [given.depth for given in givens if given.depth is not None]
    path = path_of(first, model.schedule)
    total = path.steps + (first.steps if first.refine_depth else 0)

    def run(done: int, text: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        return sample(
            model,
            text,
            grid,
            noise=noise,
            seed=seeds,
            solver=first.sampler,
            guidance=networks.guidance,
            callback=lambda step, *_: None if progress is None else progress(done + step, total),
            block_cache=BlockCache(first.block_cache) if first.block_cache else None,
            cuda_graph=first.cuda_graph,
            **options,
        )

    rgb, depth = run(
        0,
        networks.text,
        mode=first.mode,
        cfg=guidance_of(first),
        path=path,
        null_text=networks.null_text,
        rgb=rgb_tokens(networks.autoencoder, pictures, networks.device) if pictures else None,
        depth=_depth_tokens(measured, noise[1]) if measured else None,
    )
    if first.refine_depth:
        empty = networks.null_text.expand(len(jobs), -1, -1)
        refining = PathSpec("i2d").build(first.steps, model.schedule)
        _, depth = run(path.steps, empty, mode="i2d", cfg=CFG["i2d"], path=refining, rgb=rgb)
    images = None if first.mode == "i2d" else _images(networks.autoencoder, rgb, grid)
    maps = None if first.mode == "d2i" else _depth_maps(depth, grid)
    return images, maps


def rgb_tokens(autoencoder: Autoencoder, pictures: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Tokens (B, N, C) of pictures (H, W, 3) uint8."""
    images = rearrange(torch.from_numpy(np.stack(pictures)), "b h w c -> b c h w")
    images = images.to(device, torch.float32)
    return latents_to_tokens(autoencoder.encode(images / 127.5 - 1)).float()


def _depth_tokens(maps: Sequence[np.ndarray], noise: Tensor) -> Tensor:
    """Tokens (B, N, p * p) of depth maps (H, W), noise in the pixels without a measurement."""
    patches = encode_depth(torch.from_numpy(np.stack(maps)), patch_size=PATCH_SIZE)
    return fill_missing(patches_to_tokens(patches), noise)


def _images(autoencoder: Autoencoder, tokens: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """Pictures (B, H, W, 3) uint8."""
    images = autoencoder.decode(tokens_to_latents(tokens, grid).contiguous()).float()
    if not torch.isfinite(images).all():
        raise ValueError("The picture came out as NaN: use `dtype` float32 or bfloat16, and a lower `cfg`.")
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return rearrange(pixels, "b c h w -> b h w c").cpu().numpy()


def _depth_maps(tokens: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """Relative depth (B, H, W) float32, NaN where there is none."""
    maps = decode_depth(tokens_to_patches(tokens, grid)).cpu().numpy()
    if not np.isfinite(maps).any((1, 2)).all():
        raise ValueError("The depth came out with no valid pixel: the model is untrained or does not fit `size`.")
    return maps
