"""The built-in model's autoencoder: a linear map of overlapping windows, and a small cleaning network.

Encoding is one strided convolution: 32 numbers for every 8x8 pixels, taken from a window around them and scaled so that
the latents have about zero mean and unit deviation, packed 2x2 to 128 channels at 1/16, which is the shape of a FLUX.2
latent. Decoding is a transposed convolution, whose windows add up where they overlap, and a residual network at 1/4 of
the image's size. Where a window is just the patch, errors of the latents end in steps at the patches' borders; where it
is wider they fade out (as in the lapped transforms of Malvar & Staelin, 1989). Both cost little on a CPU.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import pad

from .familiarity import Familiarity
from .latent_space import check_image, check_latent, pack_2x2, unpack_2x2

PATCH = 8
LATENT_CHANNELS = 32
#: The cleaning network sees 4x4 pixels as one position of 48 channels.
_CLEANING_FACTOR = 4


class PatchAutoencoder(nn.Module):
    """``encode`` maps images (B, 3, H, W) in [-1, 1] to latents (B, 128, H / 16, W / 16); ``decode`` maps them back.

    Args:
        window: side of the square of pixels that a patch's numbers are taken from and added to; 8, without overlap, up
            to 24.
        cleaning_width: channels of the cleaning network.
        cleaning_layers: its convolutions.
    """

    spatial_factor = 2 * PATCH
    latent_channels = 4 * LATENT_CHANNELS

    def __init__(self, *, window: int = PATCH, cleaning_width: int = 96, cleaning_layers: int = 4) -> None:
        super().__init__()
        if not PATCH <= window <= 3 * PATCH or window % 2:
            raise ValueError(f"The window must be an even number from {PATCH} to {3 * PATCH}, not {window}.")
        if cleaning_layers < 2 or cleaning_width < 1:
            raise ValueError("The cleaning network needs at least 2 layers and 1 channel.")
        self.overlap = (window - PATCH) // 2
        #: Statistics of the latents that a model was trained on, where they are known.
        self.familiarity: Familiarity | None = None
        self.components = nn.Conv2d(3, LATENT_CHANNELS, window, stride=PATCH)
        margin = PATCH + self.overlap if self.overlap else 0
        self.inverse = nn.ConvTranspose2d(LATENT_CHANNELS, 3, window, stride=PATCH, padding=margin)
        pixels = 3 * _CLEANING_FACTOR**2
        widths = [pixels, *[cleaning_width] * (cleaning_layers - 1), pixels]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.SiLU()]
        self.cleaning = nn.Sequential(*layers[:-1])

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> "PatchAutoencoder":
        """An autoencoder of the sizes that a file's tensors have.

        Raises:
            ValueError: they are not sizes of one.
        """
        convolutions = [name for name in tensors if name.startswith("cleaning.") and name.endswith(".weight")]
        first, components = tensors.get("cleaning.0.weight"), tensors["components.weight"]
        if first is None or components.ndim != 4:
            raise ValueError("the tensors are not those of a patch autoencoder")
        return cls(
            window=components.shape[-1], cleaning_width=first.shape[0], cleaning_layers=max(2, len(convolutions))
        )

    def encode(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], sides divisible by 16 -> latents (B, 128, H / 16, W / 16).

        Raises:
            ValueError: other shapes or values.
        """
        check_image(image, self.spatial_factor)
        padded = image.to(self.components.weight.dtype)
        if self.overlap:
            padded = pad(padded, (self.overlap,) * 4, mode="reflect")
        return pack_2x2(self.components(padded)).to(image.dtype)

    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, 128, h, w) -> images (B, 3, 16h, 16w), nominally in [-1, 1], not clamped, in the latent's dtype.

        Raises:
            ValueError: other shapes or values.
        """
        check_latent(latent, self.latent_channels)
        rough = self.rough(latent.to(self.inverse.weight.dtype))
        return (rough + self.seams(rough)).to(latent.dtype)

    def is_unfamiliar(self, latent: Tensor) -> Tensor:
        """Which pictures, by their latents (B, 128, h, w), are far from those that the model was trained on; (B,) bool.

        None of them where that is not known.
        """
        if self.familiarity is None:
            return torch.zeros(len(latent), dtype=torch.bool)
        return self.familiarity.is_unfamiliar(latent)

    def rough(self, latent: Tensor) -> Tensor:
        """The linear part of the decoding, (B, 128, h, w) -> (B, 3, 16h, 16w)."""
        patches = unpack_2x2(latent)
        if self.overlap:  # continued by one patch at each side, as many windows meet at the border as inside
            patches = pad(patches, (1,) * 4, mode="replicate")
        return self.inverse(patches)

    def seams(self, rough: Tensor) -> Tensor:
        """What the cleaning network adds to a linear decoding; both (B, 3, H, W)."""
        sides = {"p": _CLEANING_FACTOR, "q": _CLEANING_FACTOR}
        packed = rearrange(rough, "b c (h p) (w q) -> b (c p q) h w", **sides)
        return rearrange(self.cleaning(packed), "b (c p q) h w -> b c (h p) (w q)", **sides)

    @torch.no_grad()
    def set_principal_components(self, images: Tensor) -> None:
        """Fit both linear maps to images (n, 3, H, W) in [-1, 1], without overlap, and close the cleaning network.

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
        middle = slice(self.overlap, self.overlap + PATCH)
        square = (LATENT_CHANNELS, 3, PATCH, PATCH)
        state["components.weight"].zero_()[:, :, middle, middle] = weight.view(square).float()
        state["components.bias"].copy_(-weight @ mean)
        state["inverse.weight"].zero_()[:, :, middle, middle] = inverse.T.reshape(square).float()
        # A transposed convolution has one bias per color: the mean patch is put back as its mean color.
        state["inverse.bias"].copy_(mean.view(3, -1).mean(1))
        self.close_cleaning()

    @torch.no_grad()
    def close_cleaning(self) -> None:
        """Let the cleaning network add nothing."""
        last = self.cleaning[-1]
        for parameter in last.parameters():
            parameter.zero_()

    @torch.no_grad()
    def standardize(self, images: Tensor) -> None:
        """Scale and shift the latents, and their decoding against it, so that those of ``images`` have mean 0 and
        deviation 1."""
        latent = self.encode(images).double()
        mean, deviation = latent.mean(), latent.std()
        state = self.state_dict()
        # Every pixel gets the mean from all the windows that meet there.
        shift = state["inverse.weight"].double().sum((0, 2, 3)) / PATCH**2 * mean
        state["inverse.bias"].add_(shift)
        state["inverse.weight"].mul_(deviation)
        state["components.weight"].div_(deviation)
        state["components.bias"].sub_(mean).div_(deviation)

    def preview_colors(self) -> tuple[list[list[float]], list[float]]:
        """What one number of each of the 32 components adds to the mean color of its patch, and the bias."""
        assert self.inverse.bias is not None
        weight = self.inverse.weight.float().sum((2, 3)) / PATCH**2
        return weight.tolist(), self.inverse.bias.float().tolist()


def save_patch_autoencoder(model: PatchAutoencoder, path: str | Path) -> None:
    """Write one safetensors file that :func:`..load_autoencoder` opens."""
    save_file({name: value.detach().float().contiguous() for name, value in model.state_dict().items()}, str(path))
