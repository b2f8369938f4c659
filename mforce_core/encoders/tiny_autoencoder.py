"""The tiny FLUX.2 autoencoder: 3 x H x W images to 128 x H/16 x W/16 latents and back, in 5 MB.

Layer sizes, tensor names and the two latent scalars are those of the TAESD family for FLUX.2.
"""

from __future__ import annotations

import torch
from torch import nn

from .latent_space import check_image, check_latent, pack_2x2, unpack_2x2

WIDTH = 64
LATENT_CHANNELS = 32  # at 1/8 of the image; packed 2x2 they are 128 channels at 1/16
PACKED_CHANNELS = 4 * LATENT_CHANNELS
LATENT_LIMIT = 3.0  # the decoder squashes its input smoothly into (-3, 3)


class SoftLimit(nn.Module):
    """Any value -> one within the limit, small ones nearly unchanged."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x / LATENT_LIMIT) * LATENT_LIMIT


def conv3x3(channels_in: int, channels_out: int, **options) -> nn.Conv2d:
    """A convolution that keeps the size, unless ``options`` say otherwise."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, **options)


class Block(nn.Module):
    """A residual block; `wide_context` first adds a group-normalized branch, which sees the whole image."""

    def __init__(self, width: int, wide_context: bool = False):
        super().__init__()
        self.conv = nn.Sequential(
            conv3x3(width, width), nn.ReLU(), conv3x3(width, width), nn.ReLU(), conv3x3(width, width)
        )
        self.pool = None
        if wide_context:
            self.pool = nn.Sequential(
                nn.Conv2d(width, 4 * width, 1, bias=False),
                nn.GroupNorm(4, 4 * width),
                nn.ReLU(),
                nn.Conv2d(4 * width, width, 1, bias=False),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def blocks(count: int, wide_context: bool = False) -> list[nn.Module]:
    """Residual blocks one after the other."""
    return [Block(WIDTH, wide_context) for _ in range(count)]


def halve() -> nn.Module:
    """(B, C, H, W) -> (B, C, H / 2, W / 2)."""
    return conv3x3(WIDTH, WIDTH, stride=2, bias=False)


def double() -> list[nn.Module]:
    """(B, C, h, w) -> (B, C, 2 h, 2 w)."""
    return [nn.Upsample(scale_factor=2), conv3x3(WIDTH, WIDTH, bias=False)]


class TinyAutoencoder(nn.Module):
    """`encode` maps images (B, 3, H, W) in [-1, 1] to latents (B, 128, H/16, W/16); `decode` maps them back.

    `vae_scale` and `vae_shift` map the network's own latents, which lie within about (-3, 3), to the latents
    the diffusion model sees. Training chooses them so that those have about zero mean and unit deviation.
    """

    spatial_factor = 16
    latent_channels = PACKED_CHANNELS

    def __init__(self):
        super().__init__()
        self.taesd_encoder = nn.Sequential(
            conv3x3(3, WIDTH), *blocks(1),
            halve(), *blocks(3),
            halve(), *blocks(3),
            halve(), *blocks(3, wide_context=True),
            conv3x3(WIDTH, LATENT_CHANNELS),
        )  # fmt: skip
        self.taesd_decoder = nn.Sequential(
            SoftLimit(), conv3x3(LATENT_CHANNELS, WIDTH), nn.ReLU(),
            *blocks(3, wide_context=True), *double(),
            *blocks(3), *double(),
            *blocks(3), *double(),
            *blocks(1), conv3x3(WIDTH, 3),
        )  # fmt: skip
        self.vae_scale = nn.Parameter(torch.tensor(1.0), requires_grad=False)
        self.vae_shift = nn.Parameter(torch.tensor(0.0), requires_grad=False)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) in [-1, 1], sides divisible by 16 -> latents (B, 128, H/16, W/16).

        Computed in the weights' dtype, returned in the image's. Raises ValueError for other shapes or values.
        """
        check_image(image, self.spatial_factor)
        own = self.taesd_encoder((image * 0.5 + 0.5).to(self.vae_scale.dtype))
        return (pack_2x2(own) / self.vae_scale + self.vae_shift).to(image.dtype)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Latents (B, 128, h, w) -> images (B, 3, 16h, 16w), nominally in [-1, 1] (not clamped).

        Computed in the weights' dtype, returned in the latent's. Raises ValueError for other shapes or
        values.
        """
        check_latent(latent, self.latent_channels)
        own = (latent.to(self.vae_scale.dtype) - self.vae_shift) * self.vae_scale
        return (self.taesd_decoder(unpack_2x2(own)) * 2 - 1).to(latent.dtype)
