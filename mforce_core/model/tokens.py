"""The four layouts of a picture's content, and every way between them.

====================  =================  ==================================================================
maps                  (B, H, W)          one value per pixel: depth
patches               (B, h, w, C)       one vector per grid cell, h = H / p and w = W / p; for depth C = p * p
latents               (B, C, h, w)       the same, channels first: what autoencoders and ComfyUI's LATENT hold
tokens                (B, h * w, C)      the sequence that the transformer takes, row-major over the grid
====================  =================  ==================================================================
"""

import math

from einops import rearrange
from torch import Tensor


def patchify(maps: Tensor, patch_size: int) -> Tensor:
    """Maps (B, h * p, w * p) -> patches (B, h, w, p * p), row-major inside a patch."""
    return rearrange(maps, "b (h ph) (w pw) -> b h w (ph pw)", ph=patch_size, pw=patch_size)


def unpatchify(patches: Tensor) -> Tensor:
    """Patches (B, h, w, p * p) -> maps (B, h * p, w * p)."""
    return rearrange(patches, "b h w (ph pw) -> b (h ph) (w pw)", ph=math.isqrt(patches.shape[-1]))


def patches_to_tokens(patches: Tensor) -> Tensor:
    """Patches (B, h, w, C) -> tokens (B, h * w, C)."""
    return rearrange(patches, "b h w c -> b (h w) c")


def tokens_to_patches(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (B, h * w, C) on the grid (h, w) -> patches (B, h, w, C)."""
    height, width = grid
    return rearrange(tokens, "b (h w) c -> b h w c", h=height, w=width)


def latents_to_tokens(latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) -> tokens (B, h * w, C)."""
    return rearrange(latents, "b c h w -> b (h w) c")


def tokens_to_latents(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (B, h * w, C) on the grid (h, w) -> latents (B, C, h, w)."""
    height, width = grid
    return rearrange(tokens, "b (h w) c -> b c h w", h=height, w=width)


def patches_to_latents(patches: Tensor) -> Tensor:
    """Patches (B, h, w, C) -> latents (B, C, h, w)."""
    return rearrange(patches, "b h w c -> b c h w")


def latents_to_patches(latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) -> patches (B, h, w, C)."""
    return rearrange(latents, "b c h w -> b h w c")
