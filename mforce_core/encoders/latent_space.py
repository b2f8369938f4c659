"""What the autoencoders have in common: the 2x2 packing of latents and the checks of their inputs."""

from __future__ import annotations

import torch
from einops import rearrange


def pack_2x2(latent: torch.Tensor) -> torch.Tensor:
    """(B, C, 2h, 2w) -> (B, 4C, h, w), channel-major: (channel, row in the patch, column in the patch)."""
    return rearrange(latent, "b c (h p) (w q) -> b (c p q) h w", p=2, q=2)


def unpack_2x2(latent: torch.Tensor) -> torch.Tensor:
    """(B, 4C, h, w) -> (B, C, 2h, 2w), the inverse of `pack_2x2`."""
    return rearrange(latent, "b (c p q) h w -> b c (h p) (w q)", p=2, q=2)


def check_image(image: torch.Tensor, spatial_factor: int) -> None:
    """Raises ValueError unless `image` is (B, 3, H, W) in about [-1, 1], sides divisible by the factor."""
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"An image must have the shape (batch, 3, height, width), not {tuple(image.shape)}.")
    height, width = image.shape[-2:]
    if height % spatial_factor or width % spatial_factor or image.numel() == 0:
        raise ValueError(f"The image is {width}x{height}; make both sides multiples of {spatial_factor}.")
    if not image.is_floating_point():
        raise ValueError(f"The image has whole numbers ({image.dtype}); scale it to floats in [-1, 1].")
    # Resampling overshoots a little past 1; NaN fails the comparison too.
    if not image.detach().abs().amax() <= 2:
        raise ValueError("The image has values far outside [-1, 1] or not finite; scale it to [-1, 1].")


def check_latent(latent: torch.Tensor, channels: int) -> None:
    """Raises ValueError unless `latent` is (B, channels, h, w), floating-point and finite."""
    if latent.ndim != 4 or latent.shape[1] != channels or latent.numel() == 0:
        raise ValueError(
            f"A latent for this autoencoder must have the shape (batch, {channels}, height, width), "
            f"not {tuple(latent.shape)}."
        )
    if not latent.is_floating_point():
        raise ValueError(f"The latent has whole numbers ({latent.dtype}); it must be floating-point.")
    if not torch.isfinite(latent.detach()).all():
        raise ValueError("The latent has values that are not finite; sample it again with other settings.")
