"""What a checkpoint says of itself, without its weights being read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model.config import VARIANTS, Architecture, ConfigError, ModelConfig, infer_architecture, read_config
from ..model.transformer import ModalityForcingTransformer
from . import quantization
from .layouts import Source, find_layout
from .named_parts import named_part
from .quantization import QuantizationError
from .tensor_files import CheckpointError, open_tensors
from .update import UPDATE_FILE
from .weight_files import weight_files

#: Name of a list of blocks -> the field of `Architecture` that says how many there are.
_BLOCK_COUNTS = {
    "double_blocks": "depth_double",
    "single_blocks": "depth_single",
    "depth_decoder_blocks": "depth_decoder_num_layers",
}
#: So many missing blocks are listed tensor by tensor.
_FEW = 4
_MARKER_END = "." + quantization.MARKER


@dataclass(frozen=True)
class CheckpointHeader:
    """What a checkpoint says of itself without its weights being read.

    ``shapes`` and ``dtypes`` are of the transformer's weights, by names without ``prefix``; shapes are the layers' own,
    also where values are packed. ``quantized`` gives the settings of every quantized layer (see :mod:`.quantization`).
    ``sources`` says where each weight and each tensor beside a quantized one is stored. ``others`` names the tensors
    that are not the transformer's (a text encoder or autoencoder in the same file), ``metadata`` is that of the files.
    ``update`` is the file of what is added to all these weights, in a folder that names a base (see :mod:`.update`).
    """

    prefix: str
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    sources: dict[str, Source]
    others: tuple[str, ...]
    config: ModelConfig
    quantized: dict[str, dict[str, Any]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    update: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The files that hold the transformer, without its update."""
        return sorted({file for source in self.sources.values() for file, _ in source.parts})

    @property
    def architecture(self) -> Architecture:
        """From the configuration, else from the shapes."""
        return self.config.architecture or infer_architecture(self.shapes)


def check_tensors(found: Mapping[str, tuple[int, ...]], architecture: Architecture) -> list[str]:
    """Differences between a checkpoint's tensors and the architecture's, one phrase each; empty when they agree."""
    # Counted first: building a model of as many blocks as a configuration asks for may take long.
    for kind, size in _BLOCK_COUNTS.items():
        count = len({name.split(".")[1] for name in found if name.startswith(f"{kind}.")})
        asked = getattr(architecture, size)
        if asked > count + _FEW:
            return [f"the configuration asks for {asked} {kind} and the file has {count}"]
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

    A shard opens the whole checkpoint that it is part of. The configuration is the one in a file's metadata, else
    the ``config.json`` beside it. A folder that names a base there has that one's weights, with an update.

    Raises:
        CheckpointError, ConfigError: missing, truncated or foreign files.
    """
    path = Path(path)
    if (base := named_part(path, "base")) is not None:
        return _updated(path, base)
    files = weight_files(path)
    location: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    markers: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        with open_tensors(file) as handle:
            metadata = (handle.metadata() or {}) | metadata
            for name in handle.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
                if name in location:
                    raise CheckpointError(
                        f"{path}: the tensor {name} is in two files, {location[name].name} and {file.name}: keep one "
                        "conversion of the model, or give its file"
                    )
                view = handle.get_slice(name)
                location[name], shapes[name], dtypes[name] = file, tuple(view.get_shape()), view.get_dtype()
                if name.endswith(_MARKER_END):
                    markers[name] = handle.get_tensor(name)
    try:
        layout = find_layout(location)
        sources = layout.sources
        stored_as = {name: dtypes[source.parts[0][1]] for name, source in sources.items()}
        own_markers = {name: markers[sources[name].parts[0][1]] for name in sources if name.endswith(_MARKER_END)}
        quantized = _quantized_layers(stored_as, layout.prefix, own_markers, metadata)
    except (CheckpointError, QuantizationError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    beside = {f"{layer}.{suffix}" for layer in quantized for suffix in quantization.BESIDE}
    weights = sorted(sources.keys() - beside - {quantization.LEGACY_MARKER})
    formats = {f"{layer}.weight": settings["format"] for layer, settings in quantized.items()}
    return CheckpointHeader(
        prefix=layout.prefix,
        shapes={name: _unpacked(_shape(sources[name], shapes), formats.get(name)) for name in weights},
        dtypes={name: stored_as[name] for name in weights},
        sources={name: sources[name] for name in sorted(sources)},
        quantized=quantized,
        others=layout.others,
        metadata=metadata,
        config=_find_config(path, files[0], metadata),
    )


def _updated(folder: Path, base: Path) -> CheckpointHeader:
    if named_part(base, "base") is not None:
        raise CheckpointError(f"{folder} names {base} as its base, which has a base itself: name that one")
    if not (folder / UPDATE_FILE).is_file():
        raise CheckpointError(f"{folder} names a base and lacks its update, {UPDATE_FILE}")
    header, own = read_header(base), read_config(folder / "config.json")
    return replace(header, update=folder / UPDATE_FILE, config=replace(header.config, distilled=own.distilled))


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
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} has an unreadable 'config' in its metadata: {str(error)[:120]}") from None
    if isinstance(values, dict) and values.get("variant") not in tuple(VARIANTS):
        values.pop("variant", None)  # of another program, which may use the same word
    try:
        return ModelConfig.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{file} has an impossible 'config' in its metadata: {error}") from None


def _quantized_layers(
    dtypes: Mapping[str, str], prefix: str, markers: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Settings by layer, from markers, metadata, the older form, or 8-bit floats with a scale beside them.

    Args:
        dtypes: of all tensors, by names without prefix.
    """
    layers: dict[str, dict[str, Any]] = {}
    for name, dtype in dtypes.items():
        layer = name.removesuffix(".weight")
        scaled = any(f"{layer}.{suffix}" in dtypes for suffix in quantization.SCALES)
        if dtype in quantization.FLOATS and scaled and name != layer:
            # Without a mark nobody asked for activations in 8 bits.
            layers[layer] = {"format": quantization.FLOATS[dtype], "full_precision_matrix_mult": True}
    if quantization.LEGACY_MARKER in dtypes:
        ends = ".scale_weight"
        layers |= {n.removesuffix(ends): {"format": quantization.FP8} for n in dtypes if n.endswith(ends)}
    listed = quantization.read_metadata(metadata[quantization.METADATA]) if quantization.METADATA in metadata else {}
    layers |= {layer.removeprefix(prefix): settings for layer, settings in listed.items()}
    for name, marker in markers.items():
        layers[name.removesuffix(_MARKER_END)] = quantization.read_marker(marker)
    layers = {layer: settings for layer, settings in layers.items() if f"{layer}.weight" in dtypes}
    scales = quantization.ANY_SCALE
    bare = [layer for layer in layers if not any(f"{layer}.{suffix}" in dtypes for suffix in scales)]
    if bare:
        raise CheckpointError(f"{len(bare)} quantized layer(s) lack the scale of their weights, {min(bare)} among them")
    return layers


def _shape(source: Source, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Of a weight, from those of the stored tensors that are its rows."""
    first, *others = (shapes[name] for _, name in source.parts)
    if not others or any(shape[1:] != first[1:] for shape in others):
        return first
    return (first[0] + sum(shape[0] for shape in others), *first[1:])


def _unpacked(shape: tuple[int, ...], stored_as: str | None) -> tuple[int, ...]:
    return (shape[0], 2 * shape[1]) if stored_as in quantization.PACKED and len(shape) == 2 else shape
