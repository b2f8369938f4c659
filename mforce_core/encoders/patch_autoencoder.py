"""The built-in model's autoencoder: principal components of 8x8 patches, and a small cleaning network.

Encoding is one strided convolution: the 32 components with the most variance, scaled so that the latents have
about zero mean and unit deviation, packed 2x2 to 128 channels at 1/16, which is the shape of a FLUX.2 latent. Decoding
is its transpose and a residual network at 1/4 of the image's size that removes the seams between patches. Both cost
little on a CPU, and the latents need no training.
"""

from pathlib import Path

import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn

from .latent_space import check_image, check_latent, pack_2x2, unpack_2x2

PATCH = 8
LATENT_CHANNELS = 32
#: The cleaning network sees 4x4 pixels as one position of 48 channels.
_CLEANING_FACTOR = 4
_CLEANING_WIDTH = 96


class PatchAutoencoder(nn.Module):
    """``encode`` maps images (B, 3, H, W) in [-1, 1] to latents (B, 128, H / 16, W / 16); ``decode`` maps them back."""

    spatial_factor = 2 * PATCH
    latent_channels = 4 * LATENT_CHANNELS

    def __init__(self) -> None:
        super().__init__()
        pixels = 3 * _CLEANING_FACTOR**2
        self.components = nn.Conv2d(3, LATENT_CHANNELS, PATCH, stride=PATCH)
        self.inverse = nn.ConvTranspose2d(LATENT_CHANNELS, 3, PATCH, stride=PATCH)
        self.cleaning = nn.Sequential(
            nn.Conv2d(pixels, _CLEANING_WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_CLEANING_WIDTH, _CLEANING_WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_CLEANING_WIDTH, _CLEANING_WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_CLEANING_WIDTH, pixels, 3, padding=1),
        )

    def encode(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], sides divisible by 16 -> latents (B, 128, H / 16, W / 16).

        Raises:
            ValueError: other shapes or values.
        """
        check_image(image, self.spatial_factor)
        return pack_2x2(self.components(image.to(self.components.weight.dtype))).to(image.dtype)

    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, 128, h, w) -> images (B, 3, 16h, 16w), nominally in [-1, 1], not clamped, in the latent's dtype.

        Raises:
            ValueError: other shapes or values.
        """
        check_latent(latent, self.latent_channels)
        rough = self.inverse(unpack_2x2(latent.to(self.inverse.weight.dtype)))
        return (rough + self.seams(rough)).to(latent.dtype)

    def seams(self, rough: Tensor) -> Tensor:
        """What the cleaning network adds to a linear decoding; both (B, 3, H, W)."""
        sides = {"p": _CLEANING_FACTOR, "q": _CLEANING_FACTOR}
        packed = rearrange(rough, "b c (h p) (w q) -> b (c p q) h w", **sides)
        return rearrange(self.cleaning(packed), "b (c p q) h w -> b c (h p) (w q)", **sides)

    @torch.no_grad()
    def set_principal_components(self, images: Tensor) -> None:
        """Fit both linear maps to images (n, 3, H, W) in [-1, 1] and close the cleaning network.

        A component's scale is the square root of its deviation's inverse: between keeping the large ones dominant and
        giving all the same share of a denoiser's attention.
        """
        patches = rearrange(images, "n c (h p) (w q) -> (n h w) (c p q)", p=PATCH, q=PATCH).double()
        mean = patches.mean(0)
        variances, vectors = torch.linalg.eigh(torch.cov(patches.T))
        deviations = variances[-LATENT_CHANNELS:].clamp(min=1e-12).sqrt()
        weight = vectors[:, -LATENT_CHANNELS:].T / deviations.sqrt()[:, None]
        weight = weight / ((patches - mean) @ weight.T).std()
        inverse = torch.linalg.pinv(weight)  # (pixels, components)
        state = self.state_dict()
        state["components.weight"].copy_(weight.view_as(state["components.weight"]))
        state["components.bias"].copy_(-weight @ mean)
        state["inverse.weight"].copy_(inverse.T.view_as(state["inverse.weight"]))
        # A transposed convolution has one bias per color: the mean patch is put back as its mean color.
        state["inverse.bias"].copy_(mean.view(3, -1).mean(1))
        last = len(self.cleaning) - 1
        state[f"cleaning.{last}.weight"].zero_()
        state[f"cleaning.{last}.bias"].zero_()


def save_patch_autoencoder(model: PatchAutoencoder, path: str | Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write one safetensors file that :func:`..load_autoencoder` opens."""
    save_file({name: value.detach().to(dtype).contiguous() for name, value in model.state_dict().items()}, str(path))
