"""The model as `refine_depth` asks it: depth of tiles, started from depth at a part of the noise."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..depth.codec import decode_depth, encode_depth, fill_missing, mean_depth
from ..model.tokens import latents_to_tokens, patches_to_tokens, tokens_to_patches
from ..model.transformer import ModalityForcingTransformer
from ..release import CFG, PATCH_SIZE
from ..sampling.noise import draw_noise
from ..sampling.path_spec import PathSpec
from ..sampling.rollout import sample

#: Tiles take the part of a rollout's steps that their noise level is, and at least so many.
_FEWEST_STEPS = 2


class Encoder(Protocol):
    """What is needed of an autoencoder."""

    def encode(self, image: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] -> latents (B, C, h, w)."""


class TileModel:
    """Image to depth of tiles; each has noise of its own, which its number decides.

    Args:
        model: the transformer.
        autoencoder: that belongs to it.
        text: features of the prompt, (1, T, C).
        strength: noise level to start from, above 0; 1 starts from noise alone.
        steps: of a rollout from noise alone, at this spacing.
        solver: of the steps.
        seed: of the first tile.

    Raises:
        ValueError: a strength outside 0..1.
    """

    def __init__(
        self,
        model: ModalityForcingTransformer,
        autoencoder: Encoder,
        text: Tensor,
        *,
        strength: float,
        steps: int,
        solver: str,
        seed: int,
    ) -> None:
        self.model, self.autoencoder, self.text, self.solver, self.seed = model, autoencoder, text, solver, seed
        self.path = tile_path(strength).build(tile_steps(steps, strength), model.schedule)
        self.number = 0

    def __call__(self, pictures: Tensor, start: Tensor) -> Tensor:
        """Maps (B, h, w) of pictures (B, 3, h, w) in [0, 1], from maps (B, h, w)."""
        height, width = start.shape[1:]
        pictures, start = on_grid(pictures), on_grid(start[:, None])[:, 0]
        device = next(self.model.parameters()).device
        rgb = latents_to_tokens(self.autoencoder.encode(2 * pictures.to(device, torch.float32) - 1)).float()
        grid = start.shape[1] // PATCH_SIZE, start.shape[2] // PATCH_SIZE
        seeds = [(self.seed + self.number + place) % 2**64 for place in range(len(start))]
        self.number += len(start)
        shapes = (1, *rgb.shape[1:]), (1, grid[0] * grid[1], self.model.config.depth_channels)
        noise = draw_noise(*shapes, seeds)
        tokens = fill_missing(patches_to_tokens(encode_depth(start, patch_size=PATCH_SIZE)), noise[1])
        _, depth = sample(
            self.model, self.text.expand(len(start), -1, -1), grid, mode="i2d", cfg=CFG["i2d"], rgb=rgb, depth=tokens,
            noise=noise, seed=seeds, path=self.path, solver=self.solver,
        )  # fmt: skip
        maps = decode_depth(tokens_to_patches(depth, grid)).cpu() * mean_depth(start).float()[:, None, None]
        return maps[:, :height, :width]


def tile_path(strength: float) -> PathSpec:
    """From the noise level that tiles start at down to depth without noise; the picture has none.

    Raises:
        ValueError: a strength outside 0..1.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"`strength` must be above 0 and at most 1, got {strength}.")
    return PathSpec("i2d", start_depth=strength)


def tile_steps(steps: int, strength: float) -> int:
    """Steps of a tile, where a rollout from noise alone takes so many."""
    return min(steps, max(_FEWEST_STEPS, math.ceil(steps * strength)))


def on_grid(maps: Tensor) -> Tensor:
    """Maps (B, C, H, W) continued by their border below and to the right, to multiples of a token's side."""
    height, width = maps.shape[-2:]
    return pad(maps, (0, -width % PATCH_SIZE, 0, -height % PATCH_SIZE), mode="replicate")
