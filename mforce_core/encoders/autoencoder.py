"""The FLUX.2 autoencoder.

Images go to 32 channels at 1/8 of their size, are packed 2x2 to 128 channels at 1/16, and are normalized by
the running statistics of a batch norm. Module names are the checkpoint's.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import rearrange
from torch import nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention, silu

from .latent_space import check_image, check_latent, pack_2x2, unpack_2x2

NORM_GROUPS = 32
LATENT_NORM_EPS = 1e-4


def group_norm(channels: int) -> nn.GroupNorm:
    """The norm before every convolution."""
    return nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = group_norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(silu(self.norm1(x)))
        h = self.conv2(silu(self.norm2(h)))
        return self.nin_shortcut(x) + h


class Attention(nn.Module):
    """Single-head attention between all positions, with a residual connection."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        q, k, v = (rearrange(layer(h), "b c h w -> b 1 (h w) c") for layer in (self.q, self.k, self.v))
        h = scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(h, "b 1 (h w) c -> b c h w", h=x.shape[2]))


class Middle(nn.Module):
    """The blocks at the latent's resolution, attention between them."""

    def __init__(self, channels: int):
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = Attention(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, C, H / 2, W / 2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(pad(x, (0, 1, 0, 1)))  # one row below and one column to the right only


class Upsample(nn.Module):
    """(B, C, h, w) -> (B, C, 2 h, 2 w)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))


class DownLevel(nn.Module):
    """The encoder's blocks at one resolution, and the way to the next; the last level stays at its own."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int, last: bool):
        super().__init__()
        widths = [channels_in] + [channels_out] * blocks
        self.block = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(widths)))
        self.downsample = nn.Identity() if last else Downsample(channels_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.downsample(self.block(x))


class UpLevel(nn.Module):
    """The same of the decoder."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int, last: bool):
        super().__init__()
        widths = [channels_in] + [channels_out] * blocks
        self.block = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(widths)))
        self.upsample = nn.Identity() if last else Upsample(channels_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.upsample(self.block(x))


@dataclass(frozen=True)
class Sizes:
    """`encoder_widths` and `decoder_widths` run from the image's resolution to the latent's."""

    latent_channels: int
    encoder_widths: tuple[int, ...]
    encoder_blocks: int
    decoder_widths: tuple[int, ...]
    decoder_blocks: int


class Encoder(nn.Module):
    """Image (B, 3, H, W) -> mean and log variance of the posterior, (B, 2Z, H/f, W/f)."""

    def __init__(self, widths: tuple[int, ...], blocks: int, latent_channels: int):
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        inputs = (widths[0], *widths)
        last = len(widths) - 1
        self.down = nn.Sequential(*(DownLevel(inputs[i], widths[i], blocks, i == last) for i in range(len(widths))))
        self.mid = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 2 * latent_channels, 3, padding=1)
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        h = self.mid(self.down(self.conv_in(image)))
        return self.quant_conv(self.conv_out(silu(self.norm_out(h))))


class Decoder(nn.Module):
    """Latent (B, Z, h, w) -> image (B, 3, f h, f w)."""

    def __init__(self, widths: tuple[int, ...], blocks: int, latent_channels: int):
        super().__init__()
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self.conv_in = nn.Conv2d(latent_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        inputs = (*widths[1:], widths[-1])
        # Level 0 is the image's resolution, so the levels run backwards.
        self.up = nn.ModuleList(UpLevel(inputs[i], widths[i], blocks, i == 0) for i in range(len(widths)))
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        h = self.mid(self.conv_in(self.post_quant_conv(latent)))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(silu(self.norm_out(h)))


class LatentNorm(nn.Module):
    """The running statistics of a batch norm, applied and undone."""

    def __init__(self, channels: int):
        super().__init__()
        self.running_mean: torch.Tensor
        self.running_var: torch.Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def deviation(self) -> torch.Tensor:
        """Of each channel, (1, C, 1, 1)."""
        return (self.running_var + LATENT_NORM_EPS).sqrt().view(1, -1, 1, 1)

    def normalize(self, latent: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w) of the encoder -> those that the model takes."""
        return (latent - self.running_mean.view(1, -1, 1, 1)) / self.deviation()

    def restore(self, latent: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`normalize`."""
        return latent * self.deviation() + self.running_mean.view(1, -1, 1, 1)


class Autoencoder(nn.Module):
    """The FLUX.2 autoencoder. `spatial_factor` is 16 and `latent_channels` 128 for the published weights."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.encoder = Encoder(sizes.encoder_widths, sizes.encoder_blocks, sizes.latent_channels)
        self.decoder = Decoder(sizes.decoder_widths, sizes.decoder_blocks, sizes.latent_channels)
        self.latent_channels = 4 * sizes.latent_channels
        self.spatial_factor = 2 ** len(sizes.encoder_widths)  # one halving fewer than levels, and the packing's
        self.bn = LatentNorm(self.latent_channels)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> normalized posterior means (B, latent_channels, H/f, W/f).

        H and W must be divisible by f = `spatial_factor`. Computed in the weights' dtype, returned in the
        image's. Raises ValueError for other shapes or values.
        """
        check_image(image, self.spatial_factor)
        mean, _ = self.encoder(image.to(self.encoder.conv_in.weight.dtype)).chunk(2, dim=1)
        return self.bn.normalize(pack_2x2(mean)).to(image.dtype)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Latents (B, latent_channels, h, w) -> images (B, 3, f h, f w), nominally in [-1, 1] (not clamped).

        Computed in the weights' dtype, returned in the latent's. Raises ValueError for other shapes or
        values.
        """
        check_latent(latent, self.latent_channels)
        own = unpack_2x2(self.bn.restore(latent)).to(self.decoder.conv_in.weight.dtype)
        return self.decoder(own).to(latent.dtype)
