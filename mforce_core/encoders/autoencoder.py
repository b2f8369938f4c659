"""The FLUX.2 autoencoder and the loading of every form of autoencoder file.

Images go to 32 channels at 1/8 of their size, are packed 2x2 to 128 channels at 1/16, and are normalized by
the running statistics of a batch norm. All sizes come from the shapes of the file's tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention, silu

from ..weights.checkpoint import open_safetensors
from .latent_space import check_image, check_latent, pack_2x2, unpack_2x2
from .patch_autoencoder import PatchAutoencoder
from .tiny_autoencoder import TinyAutoencoder

NORM_GROUPS = 32
LATENT_NORM_EPS = 1e-4
ENCODER_FILE, DECODER_FILE = "ae_encoder.safetensors", "ae_decoder.safetensors"
ONE_FILE_NAMES = ("autoencoder.safetensors", "ae.safetensors", "flux2-vae.safetensors")


class AutoencoderError(ValueError):
    """A file that is not an autoencoder this project can use."""


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)


class ResidualBlock(nn.Module):
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
        q, k, v = (layer(h).flatten(2).mT.unsqueeze(1) for layer in (self.q, self.k, self.v))  # (B, 1, HW, C)
        h = scaled_dot_product_attention(q, k, v).squeeze(1).mT.reshape(x.shape)
        return x + self.proj_out(h)


class Middle(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = Attention(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(pad(x, (0, 1, 0, 1)))  # one row below and one column to the right only


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))


class DownLevel(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, blocks: int, last: bool):
        super().__init__()
        widths = [channels_in] + [channels_out] * blocks
        self.block = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(widths)))
        self.downsample = nn.Identity() if last else Downsample(channels_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.downsample(self.block(x))


class UpLevel(nn.Module):
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
        return (self.running_var + LATENT_NORM_EPS).sqrt().view(1, -1, 1, 1)

    def normalize(self, latent: torch.Tensor) -> torch.Tensor:
        return (latent - self.running_mean.view(1, -1, 1, 1)) / self.deviation()

    def restore(self, latent: torch.Tensor) -> torch.Tensor:
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


def load_autoencoder(
    path: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Autoencoder | TinyAutoencoder | PatchAutoencoder:
    """Loads an autoencoder for inference.

    `path` is a folder or a file. A folder has the release's `ae_encoder.safetensors` and
    `ae_decoder.safetensors`, or one file called `autoencoder.safetensors`, `ae.safetensors` or
    `flux2-vae.safetensors`. A file is the FLUX.2 autoencoder as one file, one of the release's two with the
    other beside it, the tiny FLUX.2 autoencoder, or this project's patch autoencoder. `dtype` of the weights:
    None keeps the file's, except that float16, in which activations overflow, becomes float32.

    The result has `encode`, `decode`, `spatial_factor` and `latent_channels`.

    Raises AutoencoderError or CheckpointError, both ValueErrors, for files that are missing, truncated,
    foreign, or whose tensors are not the ones needed.
    """
    path = Path(path)
    tensors = read_tensors(path)
    check_values(tensors, path)
    with torch.device("meta"):
        model: Autoencoder | TinyAutoencoder | PatchAutoencoder
        if "taesd_decoder.1.weight" in tensors:
            model = TinyAutoencoder()
        elif "components.weight" in tensors:
            model = PatchAutoencoder()
        else:
            model = Autoencoder(infer_sizes(tensors, path))
    expected = {name: value.shape for name, value in model.state_dict().items()}
    check_names_and_shapes(tensors, expected, path)
    if dtype is None:
        stored = next(
            value.dtype
            for name, value in tensors.items()
            if name.endswith(("conv_in.weight", "components.weight")) or "taesd" in name
        )
        dtype = torch.float32 if stored == torch.float16 else stored
    if dtype not in (torch.float32, torch.bfloat16):
        raise AutoencoderError(f"An autoencoder runs in float32 or bfloat16, not {dtype}.")
    # The latent's statistics stay in float32: they are few, and their error would reach every pixel.
    state = {
        name: value.to(device, torch.float32 if name.startswith("bn.") else dtype) for name, value in tensors.items()
    }
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of whichever form lies at `path`, by the names of the module that holds it."""
    folder = path if path.is_dir() else path.parent
    halves = [folder / ENCODER_FILE, folder / DECODER_FILE]
    if path in halves or (path.is_dir() and any(half.exists() for half in halves)):
        return read_two_files(folder)
    if path.is_dir():
        path = find_one_file(folder)
    tensors = read_file(path)
    if any(name.startswith(("taesd_", "components.")) for name in tensors):
        return tensors
    # ComfyUI and older files keep the two 1x1 convolutions beside the encoder and decoder, not inside.
    moved = {"quant_conv.": "encoder.quant_conv.", "post_quant_conv.": "decoder.post_quant_conv."}
    for old, new in moved.items():
        tensors = {new + name[len(old) :] if name.startswith(old) else name: v for name, v in tensors.items()}
    tensors.pop("bn.num_batches_tracked", None)  # a counter of training, absent from some files
    return tensors


def find_one_file(folder: Path) -> Path:
    for name in ONE_FILE_NAMES:
        if (folder / name).exists():
            return folder / name
    raise AutoencoderError(
        f"There is no autoencoder in {folder}: it needs {ENCODER_FILE} with {DECODER_FILE}, or {ONE_FILE_NAMES[0]}."
    )


def read_two_files(folder: Path) -> dict[str, torch.Tensor]:
    for name in (ENCODER_FILE, DECODER_FILE):
        if not (folder / name).exists():
            raise AutoencoderError(f"{folder} has only half of an autoencoder: {name} is missing.")
    tensors: dict[str, torch.Tensor] = {}
    for part, file in (("encoder", ENCODER_FILE), ("decoder", DECODER_FILE)):
        for name, value in read_file(folder / file).items():
            if name == "bn.num_batches_tracked":
                continue
            if not name.startswith("bn."):
                tensors[f"{part}.{name}"] = value
            elif name in tensors and not torch.equal(tensors[name], value):
                raise AutoencoderError(f"{ENCODER_FILE} and {DECODER_FILE} in {folder} are of different models.")
            else:
                tensors[name] = value
    return tensors


def read_file(path: Path) -> dict[str, torch.Tensor]:
    with open_safetensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def infer_sizes(tensors: dict[str, torch.Tensor], path: Path) -> Sizes:
    """Reads the sizes off the shapes; AutoencoderError where the file is not a FLUX.2 autoencoder."""
    encoder_widths, encoder_blocks = level_sizes(tensors, "encoder.down")
    decoder_widths, decoder_blocks = level_sizes(tensors, "decoder.up")
    quant = tensors.get("decoder.post_quant_conv.weight")
    if not encoder_widths or not decoder_widths or quant is None or quant.ndim != 4:
        hint = ""
        if any(".down_blocks." in name for name in tensors):
            hint = " It is in the diffusers layout; use the original or the ComfyUI file."
        raise AutoencoderError(f"{path} is not a FLUX.2 autoencoder, neither the full nor the tiny one.{hint}")
    if "bn.running_mean" not in tensors:
        raise AutoencoderError(
            f"{path} has no latent statistics (bn.running_mean): it is of an older model than FLUX.2."
        )
    widths = {*encoder_widths, *decoder_widths}
    if len(encoder_widths) != len(decoder_widths) or any(width % NORM_GROUPS for width in widths):
        raise AutoencoderError(
            f"{path}: the widths of its levels, {encoder_widths} and {decoder_widths}, are not those of an autoencoder."
        )
    return Sizes(quant.shape[0], encoder_widths, encoder_blocks, decoder_widths, decoder_blocks)


def level_sizes(tensors: dict[str, torch.Tensor], prefix: str) -> tuple[tuple[int, ...], int]:
    """Output widths of the levels `prefix`.0, .1, ... and the number of residual blocks in each."""
    widths: list[int] = []
    while (weight := tensors.get(f"{prefix}.{len(widths)}.block.0.conv1.weight")) is not None:
        widths.append(weight.shape[0])
    blocks = 0
    while f"{prefix}.0.block.{blocks}.conv1.weight" in tensors:
        blocks += 1
    return tuple(widths), blocks


def check_names_and_shapes(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Size], path: Path) -> None:
    for problem, names in (
        ("lacks", expected.keys() - tensors.keys()),
        ("has", tensors.keys() - expected.keys()),
    ):
        if names:
            unknown = " unknown" if problem == "has" else ""
            listed = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise AutoencoderError(f"{path} {problem} {len(names)}{unknown} tensor(s) of an autoencoder: {listed}.")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise AutoencoderError(f"{path}: {name} has the shape {tuple(tensors[name].shape)}, not {tuple(shape)}.")


def check_values(tensors: dict[str, torch.Tensor], path: Path) -> None:
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise AutoencoderError(
                f"{path}: {name} is stored as {value.dtype}; quantized autoencoders are not supported."
            )
        if not torch.isfinite(value.float()).all():
            raise AutoencoderError(f"{path}: {name} has values that are not finite; download the file again.")
    if (variance := tensors.get("bn.running_var")) is not None and not (variance >= 0).all():
        raise AutoencoderError(f"{path}: bn.running_var has negative values; download the file again.")
    if (scale := tensors.get("vae_scale")) is not None and not (scale > 0).all():
        raise AutoencoderError(f"{path}: vae_scale must be positive, and is {scale.tolist()}.")
