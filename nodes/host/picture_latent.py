"""Pictures as the RGB stream of a latent.

Relies on: ``encode`` of a VAE.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...mforce_core.release import PATCH_SIZE, RGB_CHANNELS


def encode_pictures(vae: Any, pictures: Tensor) -> Tensor:
    """Latents (B, 128, H / 16, W / 16) of an IMAGE (B, H, W, 3), whose sides are multiples of 16.

    Raises:
        ValueError: the VAE is another model's.
    """
    rgb = vae.encode(pictures)
    batch, height, width = pictures.shape[:3]
    wanted = (batch, RGB_CHANNELS, height // PATCH_SIZE, width // PATCH_SIZE)
    if tuple(rgb.shape) != wanted:
        raise ValueError(
            f"the VAE gave a latent of shape {tuple(rgb.shape)}, but the model needs {wanted}; connect the VAE of"
            " Load MF Model or the FLUX.2 VAE."
        )
    return rgb
