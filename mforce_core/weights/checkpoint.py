"""From files to a transformer: release folders, single files and FLUX.2-klein bases, safetensors only.

The model is built on the meta device and its parameters become the file's mapped tensors, so a load never holds the
weights twice.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..model.config import Architecture, ConfigError, ModelConfig, Schedule, infer_architecture, read_config
from ..model.transformer import ModalityForcingTransformer
from . import quantization
from .quantization import QuantizationError

#: Prefixes under which the transformer is stored: the release, ComfyUI checkpoints, ComfyUI diffusion models, BFL.
PREFIXES = ("dit.", "model.diffusion_model.", "diffusion_model.", "")

# A tensor that every FLUX.2-family transformer has: where it sits tells the prefix.
_LANDMARK = "img_in.weight"

# Other parts of a release folder.
_COMPANIONS = ("ae_", "autoencoder", "text_encoder", "vae")

_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")


class CheckpointError(ValueError):
    """A checkpoint that cannot be opened or does not hold the model it should."""


@dataclass(frozen=True)
class CheckpointHeader:
    """What a checkpoint says of itself without its weights being read.

    ``shapes`` and ``dtypes`` are of the transformer's weights, by names without ``prefix``; shapes are the layers' own,
    also where values are packed. ``quantized`` gives the settings of every quantized layer (see :mod:`.quantization`).
    ``files`` maps each weight and each tensor beside a quantized one to its file. ``others`` names the tensors outside
    the prefix (a text encoder or autoencoder in the same file), ``metadata`` is that of the files.
    """

    prefix: str
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    files: dict[str, Path]
    others: tuple[str, ...]
    config: ModelConfig
    quantized: dict[str, dict[str, Any]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def architecture(self) -> Architecture:
        """From the configuration, else from the shapes."""
        return self.config.architecture or infer_architecture(self.shapes)


def find_prefix(names: Iterable[str]) -> str:
    """The prefix of the transformer's tensors among ``names``.

    Raises:
        CheckpointError: no known prefix holds a FLUX.2-family transformer.
    """
    present = set(names)
    for prefix in PREFIXES:
        if prefix + _LANDMARK in present:
            return prefix
    raise CheckpointError(
        f"no Modality Forcing or FLUX.2 transformer here: no tensor is called {_LANDMARK!r} under the prefixes "
        f"{', '.join(repr(p) for p in PREFIXES)}"
    )


def check_tensors(found: Mapping[str, tuple[int, ...]], architecture: Architecture) -> list[str]:
    """Differences between a checkpoint's tensors and the architecture's, one phrase each; empty when they agree."""
    with torch.device("meta"):
        model = ModalityForcingTransformer(architecture)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = []
    for verb, names in (
        ("missing", expected.keys() - found.keys()),
        ("unexpected", found.keys() - expected.keys()),
    ):
        if names:
            listed = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            problems.append(f"{len(names)} {verb} tensor(s): {listed}")
    for name in sorted(expected.keys() & found.keys()):
        if expected[name] != tuple(found[name]):
            problems.append(f"{name} has shape {tuple(found[name])}, the architecture needs {expected[name]}")
    return problems


def read_header(path: str | Path) -> CheckpointHeader:
    """Open a release folder or a ``.safetensors`` file and describe its transformer; no weight is read.

    A file that is one shard of several stands for its folder. The configuration is the one in a file's metadata, else
    the ``config.json`` beside it.

    Raises:
        CheckpointError, ConfigError: missing, truncated or foreign files.
    """
    path = Path(path)
    if _SHARD.search(path.name) and path.is_file():
        path = path.parent
    if path.is_dir():
        files = _transformer_files(path)
    elif path.is_file():
        files = [path]
    else:
        raise CheckpointError(f"{path} does not exist: give a release folder or a .safetensors file")

    location: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    markers: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        with open_safetensors(file) as handle:
            metadata = (handle.metadata() or {}) | metadata
            for name in handle.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
                view = handle.get_slice(name)
                location[name], shapes[name], dtypes[name] = file, tuple(view.get_shape()), view.get_dtype()
                if name.endswith("." + quantization.MARKER):
                    markers[name] = handle.get_tensor(name)
    try:
        prefix = find_prefix(shapes)
        own = {name[len(prefix) :] for name in shapes if name.startswith(prefix)}
        quantized = _quantized_layers(own, prefix, markers, metadata)
    except (CheckpointError, QuantizationError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    beside = {f"{layer}.{suffix}" for layer in quantized for suffix in quantization.BESIDE}
    weights = sorted(own - beside - {quantization.LEGACY_MARKER})
    formats = {f"{layer}.weight": settings["format"] for layer, settings in quantized.items()}
    return CheckpointHeader(
        prefix=prefix,
        shapes={name: _unpacked(shapes[prefix + name], formats.get(name)) for name in weights},
        dtypes={name: dtypes[prefix + name] for name in weights},
        files={name: location[prefix + name] for name in sorted(own)},
        quantized=quantized,
        others=tuple(sorted(shapes.keys() - {prefix + name for name in own})),
        metadata=metadata,
        config=_find_config(path, files[0], metadata),
    )


def load_model(
    path: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> ModalityForcingTransformer:
    """Load a transformer for inference.

    Args:
        path: release folder (``config.json`` beside the weights), single ``.safetensors`` file, or FLUX.2-klein base
            (which has no depth stream).
        device: where the weights go.
        dtype: torch.float32 or torch.bfloat16; None keeps the file's (float16 and 8-bit files become bfloat16). The
            weights of scaled fp8 and int8 layers are turned into this dtype once, when they are loaded.

    Returns:
        The model in eval mode; ``model.config`` and ``model.schedule`` describe it.

    Raises:
        CheckpointError, ConfigError: truncated or foreign file, tensors missing, extra or of the wrong shape.
    """
    header = read_header(path)
    try:
        architecture = header.architecture
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    problems = check_tensors(header.shapes, architecture)
    if problems:
        raise CheckpointError(f"{path} does not hold the model it should: {'; '.join(problems)}")
    if dtype is None:
        dtype = torch.float32 if header.dtypes[_LANDMARK] == "F32" else torch.bfloat16
    if dtype not in (torch.float32, torch.bfloat16):
        raise CheckpointError(
            f"dtype {dtype} is not supported: float16 overflows in this model, use bfloat16 or float32"
        )

    with torch.device("meta"):
        model = ModalityForcingTransformer(architecture, schedule=header.config.schedule, dtype=dtype)
    wanted = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    try:
        # Without a cast or a move the parameter stays a view of the mapped file.
        state = {name: weight.to(device, wanted[name]) for name, weight in _read_weights(header)}
    except QuantizationError as error:
        raise CheckpointError(f"{path}: {error}") from None
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def save_model(
    model: ModalityForcingTransformer,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    image_size: tuple[int, int] | None = None,
) -> None:
    """Write ``config.json`` and ``model.safetensors`` in the release's layout; :func:`load_model` opens the folder.

    ``image_size`` (width, height) in pixels is what the model was trained at; the command line makes such pictures.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, object] = {"architecture": model.config.to_dict(), "schedule": vars(model.schedule)}
    if image_size is not None:
        config["image_size"] = list(image_size)
    tensors = {
        "dit." + name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()
    }
    partial = folder / "model.safetensors.part"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.replace(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def open_safetensors(path: Path) -> safe_open:
    """Open a file, saying in one sentence what is wrong where that fails."""
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a complete .safetensors file ({error}): download it again; convert pickled formats first"
        ) from None


def _transformer_files(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.glob("*.safetensors") if not p.name.startswith(_COMPANIONS))
    if not files:
        raise CheckpointError(f"{folder} has no .safetensors file with a transformer")
    single = folder / "model.safetensors"
    return [single] if single in files else files


def _find_config(path: Path, file: Path, metadata: Mapping[str, str]) -> ModelConfig:
    beside = file.parent / "config.json"
    if path.is_dir():
        return read_config(beside) if beside.exists() else ModelConfig()
    if "config" in metadata:
        return _config_from_metadata(metadata["config"], file)
    if beside.is_file():
        config = read_config(beside)
        if config.architecture is not None:  # otherwise it is another model's
            return config
    return ModelConfig()


def _config_from_metadata(text: str, file: Path) -> ModelConfig:
    try:
        values = json.loads(text)
        architecture = values.get("architecture")
        return ModelConfig(
            architecture=None if architecture is None else Architecture.from_dict(architecture),
            schedule=Schedule(**values.get("schedule", {})),
            variant=values.get("variant"),
        )
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} has an unreadable 'config' in its metadata: {error}") from error


def _quantized_layers(
    names: set[str], prefix: str, markers: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Settings by layer, from markers, metadata or the older form; ``names`` are without prefix."""
    layers: dict[str, dict[str, Any]] = {}
    if quantization.LEGACY_MARKER in names:
        ends = ".scale_weight"
        layers = {name.removesuffix(ends): {"format": quantization.FP8} for name in names if name.endswith(ends)}
    listed = quantization.read_metadata(metadata[quantization.METADATA]) if quantization.METADATA in metadata else {}
    layers |= {layer.removeprefix(prefix): settings for layer, settings in listed.items()}
    for name, marker in markers.items():
        if name.startswith(prefix):
            layer = name[len(prefix) :].removesuffix("." + quantization.MARKER)
            layers[layer] = quantization.read_marker(marker)
    layers = {layer: settings for layer, settings in layers.items() if f"{layer}.weight" in names}
    scales = quantization.ANY_SCALE
    bare = [layer for layer in layers if not any(f"{layer}.{suffix}" in names for suffix in scales)]
    if bare:
        raise CheckpointError(f"{len(bare)} quantized layer(s) lack the scale of their weights, {min(bare)} among them")
    return layers


def _unpacked(shape: tuple[int, ...], stored_as: str | None) -> tuple[int, ...]:
    return (shape[0], 2 * shape[1]) if stored_as in quantization.PACKED and len(shape) == 2 else shape


def _read_weights(header: CheckpointHeader) -> Iterator[tuple[str, Tensor]]:
    """Every weight once, file by file; those of quantized layers as float32."""
    beside = {
        name: layer for layer in header.quantized for name in (f"{layer}.{suffix}" for suffix in quantization.SCALES)
    }
    scales = {beside[name]: tensor for name, tensor in _read(header, beside)}
    for name, weight in _read(header, header.shapes):
        layer = name.removesuffix(".weight")
        if layer not in header.quantized:
            yield name, weight
        else:
            yield name, quantization.dequantize(weight, scales[layer], header.quantized[layer])


def _read(header: CheckpointHeader, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Those of ``names`` that the files have."""
    wanted = set(names)
    for file in sorted(set(header.files.values())):
        with open_safetensors(file) as handle:
            for name in (n for n, home in header.files.items() if home == file and n in wanted):
                yield name, handle.get_tensor(header.prefix + name)
