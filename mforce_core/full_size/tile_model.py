"""The model as `refine_depth` and `refine_both` ask it: tiles, started from what is there at a part of the noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..depth.codec import decode_depth, encode_depth, fill_missing, mean_depth
from ..model.tokens import latents_to_tokens, patches_to_tokens, tokens_to_latents, tokens_to_patches
from ..networks import Networks
from ..release import CFG, MIN_DEPTH_TIME, PATCH_SIZE, Mode
from ..sampling.guidance import Guidance
from ..sampling.noise import draw_noise
from ..sampling.path import NoisePath
from ..sampling.path_spec import PathSpec
from ..sampling.rollout import sample

#: Tiles take the part of a rollout's steps that their noise level is, and at least so many.
_FEWEST_STEPS = 2


class _Tiles:
    """Tokens of tiles to start from; each tile has noise of its own, which its number decides."""

    def __init__(self, networks: Networks, path: NoisePath, solver: str, seed: int, cfg: float | Guidance) -> None:
        self.networks, self.path, self.solver, self.seed, self.cfg = networks, path, solver, seed, cfg
        self.number = 0

    @torch.no_grad()
    def run(self, mode: Mode, pictures: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) and maps (B, h, w), on the grid of tokens, of pictures (B, 3, h, w) and maps."""
        networks, pictures, start = self.networks, on_grid(pictures), on_grid(start[:, None])[:, 0]
        rgb = latents_to_tokens(
            networks.autoencoder.encode(2 * pictures.to(networks.device, torch.float32) - 1)
        ).float()
        grid = start.shape[1] // PATCH_SIZE, start.shape[2] // PATCH_SIZE
        seeds = [(self.seed + self.number + place) % 2**64 for place in range(len(start))]
        self.number += len(start)
        shapes = (1, *rgb.shape[1:]), (1, grid[0] * grid[1], networks.model.config.depth_channels)
        noise = draw_noise(*shapes, seeds)
        tokens = fill_missing(patches_to_tokens(encode_depth(start, patch_size=PATCH_SIZE)), noise[1])
        made, depth = sample(
            networks.model, networks.text.expand(len(start), -1, -1), grid, mode=mode, cfg=self.cfg, rgb=rgb,
            depth=tokens, null_text=networks.null_text, noise=noise, seed=seeds, path=self.path, solver=self.solver,
            guidance=networks.guidance,
        )  # fmt: skip
        maps = decode_depth(tokens_to_patches(depth, grid)).cpu() * mean_depth(start).float()[:, None, None]
        return tokens_to_latents(made, grid), maps


class TileModel:
    """Image to depth of tiles.

    Args:
        networks: of the model.
        strength: noise level to start from, above 0; 1 starts from noise alone.
        steps: of a rollout from noise alone, at this spacing.
        solver: of the steps.
        seed: of the first tile.

    Raises:
        ValueError: a strength outside 0..1.
    """

    def __init__(self, networks: Networks, *, strength: float, steps: int, solver: str, seed: int) -> None:
        path = tile_path(strength).build(tile_steps(steps, strength), networks.model.schedule)
        self.tiles = _Tiles(networks, path, solver, seed, CFG["i2d"])

    def __call__(self, pictures: Tensor, start: Tensor) -> Tensor:
        """Maps (B, h, w) of pictures (B, 3, h, w) in [0, 1], from maps (B, h, w)."""
        height, width = start.shape[1:]
        return self.tiles.run("i2d", pictures, start)[1][:, :height, :width]


class PairModel:
    """Pictures and their depth of tiles, both from the same noise level on; the rest as for `TileModel`.

    Args:
        cfg: classifier-free guidance.
    """

    def __init__(
        self, networks: Networks, *, strength: float, steps: int, solver: str, seed: int, cfg: float | Guidance
    ) -> None:
        _check_strength(strength)
        spec = PathSpec("tilt", log2_alpha=0, start_rgb=strength, start_depth=strength)
        path = spec.build(tile_steps(steps, strength), networks.model.schedule)
        self.tiles = _Tiles(networks, path, solver, seed, cfg)

    @torch.no_grad()
    def __call__(self, pictures: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, h, w) in [0, 1] and maps (B, h, w), from such."""
        height, width = start.shape[1:]
        latents, maps = self.tiles.run("joint", pictures, start)
        made = self.tiles.networks.autoencoder.decode(latents.contiguous()).float().clamp(-1, 1).cpu() / 2 + 0.5
        return made[..., :height, :width], maps[:, :height, :width]


def tile_path(strength: float) -> PathSpec:
    """From the noise level that tiles start at down to depth without noise; the picture has none.

    Raises:
        ValueError: a strength outside 0..1.
    """
    _check_strength(strength)
    return PathSpec("i2d", start_depth=strength)


def tile_steps(steps: int, strength: float) -> int:
    """Steps of a tile, where a rollout from noise alone takes so many.

    None begins below the noise level that steps are divided by at least, from which a step would leave noise behind.
    """
    most = max(1, math.floor(strength / MIN_DEPTH_TIME + 1e-6))
    return min(steps, most, max(_FEWEST_STEPS, math.ceil(steps * strength)))


def _check_strength(strength: float) -> None:
    if not 0 < strength <= 1:
        raise ValueError(f"`strength` must be above 0 and at most 1, got {strength}.")


def on_grid(maps: Tensor) -> Tensor:
    """Maps (B, C, H, W) continued by their border below and to the right, to multiples of a token's side."""
    height, width = maps.shape[-2:]
    return pad(maps, (0, -width % PATCH_SIZE, 0, -height % PATCH_SIZE), mode="replicate")
