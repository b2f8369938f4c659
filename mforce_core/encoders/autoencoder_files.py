"""Opening an autoencoder, whichever of its forms lies in the file or folder; all sizes come from the tensors."""

from __future__ import annotations

from pathlib import Path

import torch

from ..weights.bundle import read_parts, vae_prefix
from ..weights.tensor_files import open_safetensors
from ..weights.weight_files import weight_files
from .autoencoder import NORM_GROUPS, Autoencoder, Sizes
from .autoencoder_names import LANDMARK as NAME_OF_DIFFUSERS
from .autoencoder_names import from_diffusers
from .familiarity import load_familiarity
from .patch_autoencoder import PatchAutoencoder
from .tiny_autoencoder import TinyAutoencoder

ENCODER_FILE, DECODER_FILE = "ae_encoder.safetensors", "ae_decoder.safetensors"
_DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"
ONE_FILE_NAMES = (
    *("autoencoder.safetensors", "ae.safetensors", "flux2-vae.safetensors"),
    f"vae/{_DIFFUSERS_FILE}",
)


class AutoencoderError(ValueError):
    """A file that is not an autoencoder this project can use."""


def load_autoencoder(
    path: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Autoencoder | TinyAutoencoder | PatchAutoencoder:
    """Loads an autoencoder for inference.

    `path` is a folder or a file. A folder has the release's `ae_encoder.safetensors` and
    `ae_decoder.safetensors`, or one file called `autoencoder.safetensors`, `ae.safetensors` or
    `flux2-vae.safetensors`, or is diffusers' `vae` or has it. A file is the FLUX.2 autoencoder as one file, under the
    original names or those of diffusers, one of the release's two with the other beside it, the tiny FLUX.2
    autoencoder, or this project's patch autoencoder. `dtype` of the weights:
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
            model = patch_autoencoder(tensors, path)
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
    if isinstance(model, PatchAutoencoder):
        model.familiarity = load_familiarity(path)
    return model.requires_grad_(False).eval()


def patch_autoencoder(tensors: dict[str, torch.Tensor], path: Path) -> PatchAutoencoder:
    """An empty one of the tensors' sizes."""
    try:
        return PatchAutoencoder.of_tensors(tensors)
    except ValueError as error:
        raise AutoencoderError(f"{path}: {error}") from None


def autoencoder_files(path: Path) -> list[Path]:
    """The files that hold the autoencoder at `path`, a folder, a file or a shard; empty where a folder has none."""
    folder = path if path.is_dir() else path.parent
    halves = [folder / ENCODER_FILE, folder / DECODER_FILE]
    if path in halves or (path.is_dir() and any(half.exists() for half in halves)):
        return halves
    if path.is_dir():
        for name in ONE_FILE_NAMES:
            if (folder / name).exists():
                return [folder / name]
        if (folder / _DIFFUSERS_FILE).exists() and not (folder / "vae").is_dir():
            return [folder / _DIFFUSERS_FILE]
        return []
    return weight_files(path) if path.is_file() else [path]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of whichever form lies at `path`, by the names of the module that holds it."""
    files = autoencoder_files(path)
    if not files:
        raise AutoencoderError(
            f"There is no autoencoder in {path}: it needs {ENCODER_FILE} with {DECODER_FILE}, or {ONE_FILE_NAMES[0]}."
        )
    if files[0].name == ENCODER_FILE:
        return read_two_files(files[0].parent)
    tensors = read_file(files)
    if any(name.startswith(("taesd_", "components.")) for name in tensors):
        return tensors
    if NAME_OF_DIFFUSERS in tensors:
        tensors = from_diffusers(tensors)
    # ComfyUI and older files keep the two 1x1 convolutions beside the encoder and decoder, not inside.
    moved = {"quant_conv.": "encoder.quant_conv.", "post_quant_conv.": "decoder.post_quant_conv."}
    for old, new in moved.items():
        tensors = {new + name[len(old) :] if name.startswith(old) else name: v for name, v in tensors.items()}
    tensors.pop("bn.num_batches_tracked", None)  # a counter of training, absent from some files
    return tensors


def read_two_files(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a release's two files, named as in one; AutoencoderError where the two do not fit."""
    for name in (ENCODER_FILE, DECODER_FILE):
        if not (folder / name).exists():
            raise AutoencoderError(f"{folder} has only half of an autoencoder: {name} is missing.")
    tensors: dict[str, torch.Tensor] = {}
    for part, file in (("encoder", ENCODER_FILE), ("decoder", DECODER_FILE)):
        for name, value in read_file([folder / file]).items():
            if name == "bn.num_batches_tracked":
                continue
            if not name.startswith("bn."):
                tensors[f"{part}.{name}"] = value
            elif name in tensors and not torch.equal(tensors[name], value):
                raise AutoencoderError(f"{ENCODER_FILE} and {DECODER_FILE} in {folder} are of different models.")
            else:
                tensors[name] = value
    return tensors


def read_file(files: list[Path]) -> dict[str, torch.Tensor]:
    """The tensors of one file or of shards; of a checkpoint with other parts, those of the autoencoder in it."""
    location: dict[str, Path] = {}
    for path in files:
        with open_safetensors(path) as file:
            location |= dict.fromkeys(file.keys(), path)
    return read_parts(location, vae_prefix(location) or "")


def infer_sizes(tensors: dict[str, torch.Tensor], path: Path) -> Sizes:
    """Reads the sizes off the shapes; AutoencoderError where the file is not a FLUX.2 autoencoder."""
    encoder_widths, encoder_blocks = level_sizes(tensors, "encoder.down")
    decoder_widths, decoder_blocks = level_sizes(tensors, "decoder.up")
    quant = tensors.get("decoder.post_quant_conv.weight")
    if not encoder_widths or not decoder_widths or quant is None or quant.ndim != 4:
        raise AutoencoderError(f"{path} is not a FLUX.2 autoencoder, neither the full nor the tiny one.")
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
    """AutoencoderError where tensors are missing, too many or of other shapes."""
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
    """AutoencoderError where a file holds no finite floats, or statistics that cannot be."""
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
