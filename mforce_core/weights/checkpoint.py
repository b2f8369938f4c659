"""From files to a transformer: release folders, single files and FLUX.2-klein bases, safetensors only.

The model is built on the meta device and its parameters become the file's mapped tensors, so a load never holds the
weights twice.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model.config import Architecture, ConfigError, Distilled, ModelConfig, Schedule, infer_architecture, read_config
from ..model.transformer import ModalityForcingTransformer
from ..text_file import read_text
from . import quantization
from .layouts import LANDMARK, Source, find_layout, find_prefix
from .named_parts import Part, named_part
from .quantization import QuantizationError
from .tensor_files import CheckpointError, open_safetensors, open_tensors
from .update import UPDATE_FILE, read_update

__all__ = [
    "CheckpointError",
    "CheckpointHeader",
    "check_tensors",
    "find_prefix",
    "load_model",
    "open_safetensors",
    "read_header",
    "read_weight",
    "read_weights",
    "save_model",
    "weight_files",
]

# Other parts of a release folder.
_COMPANIONS = ("ae_", "autoencoder", "ae.", "flux2-vae", "text_encoder", "vae")

_SHARD = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.safetensors$")
_BLOCK_COUNTS = {
    "double_blocks": "depth_double",
    "single_blocks": "depth_single",
    "depth_decoder_blocks": "depth_decoder_num_layers",
}
#: So many missing blocks are listed tensor by tensor.
_FEW = 4
_INDEX = ".safetensors.index.json"
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
    for kind in ("double_blocks", "single_blocks", "depth_decoder_blocks"):
        count = len({name.split(".")[1] for name in found if name.startswith(f"{kind}.")})
        asked = getattr(architecture, _BLOCK_COUNTS[kind])
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
        dtype = torch.float32 if header.dtypes[LANDMARK] == "F32" else torch.bfloat16
    if dtype not in (torch.float32, torch.bfloat16):
        raise CheckpointError(
            f"dtype {dtype} is not supported: float16 overflows in this model, use bfloat16 or float32"
        )

    with torch.device("meta"):
        model = ModalityForcingTransformer(architecture, schedule=header.config.schedule, dtype=dtype)
    wanted = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    try:
        # Without a cast or a move the parameter stays a view of the mapped file.
        state = {name: weight.to(device, wanted[name]) for name, weight in read_weights(header)}
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
    parts: Mapping[Part, str] | None = None,
    distilled: Distilled | None = None,
) -> None:
    """Write ``config.json`` and ``model.safetensors`` in the release's layout; :func:`load_model` opens the folder.

    ``image_size`` (width, height) in pixels is what the model was trained at; the command line makes such pictures.
    ``parts`` names its text encoder and autoencoder (see :mod:`.named_parts`). ``distilled`` says how a model of few
    steps is to be run.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, object] = {"architecture": model.config.to_dict(), "schedule": vars(model.schedule)}
    if image_size is not None:
        config["image_size"] = list(image_size)
    if distilled is not None:
        config["distilled"] = vars(distilled)
    for part, name in (parts or {}).items():
        config[part] = name
    tensors = {
        "dit." + name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()
    }
    partial = folder / "model.safetensors.part"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.replace(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def weight_files(path: Path) -> list[Path]:
    """The files that hold a model: of a folder those of its transformer, of one shard all.

    Raises:
        CheckpointError: nothing there, or a shard is missing.
    """
    if path.is_dir():
        return _transformer_files(path)
    if path.is_file():
        return _all_shards(path)
    raise CheckpointError(f"{path} does not exist: give a release folder or a .safetensors file")


def _transformer_files(folder: Path) -> list[Path]:
    """The files of a folder that hold the transformer, of a diffusers pipeline those of its ``transformer`` folder."""
    files = sorted(p for p in folder.glob("*.safetensors") if p.is_file() and not p.name.startswith(_COMPANIONS))
    single = folder / "model.safetensors"
    if single in files:
        return [single]
    indices = [p for p in sorted(folder.glob(f"*{_INDEX}")) if not p.name.startswith(_COMPANIONS)]
    if len(indices) == 1:
        return _indexed_files(indices[0])
    if files:
        for file in files:
            _all_shards(file)
        return files
    if (folder / "transformer").is_dir():
        return _transformer_files(folder / "transformer")
    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) == 1:
        return ggufs
    if ggufs:
        raise CheckpointError(f"{folder} has {len(ggufs)} .gguf files: give the one that is meant")
    raise CheckpointError(f"{folder} has no .safetensors file with a transformer")


def _indexed_files(index: Path) -> list[Path]:
    """The shards that an index lists."""
    try:
        names = sorted(set(json.loads(read_text(index))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{index} does not list the shards of a model: download it again") from None
    files = []
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} names the file {str(name)[:80]!r}, which is not in its folder")
        if not os.path.isfile(index.parent / name):  # also False for a name that no file system takes
            raise CheckpointError(f"{index.parent} lacks the shard {name[:100]}: download it")
        files.append(index.parent / name)
    if not files:
        raise CheckpointError(f"{index} lists no shard: download it again")
    return files


def _all_shards(file: Path) -> list[Path]:
    """The file, or all shards of the model of which it is one."""
    found = _SHARD.match(file.name)
    if found is None:
        return [file]
    stem, count = found[1], int(found[3])
    present = sorted(p for p in file.parent.glob("*.safetensors") if (m := _SHARD.match(p.name)) and m[1] == stem)
    if len(present) != count:
        raise CheckpointError(f"{file.parent} has {len(present)} of the {count} shards of {stem}: download the others")
    return present


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
        variant = values.get("variant")
        return ModelConfig(
            architecture=None if architecture is None else Architecture.from_dict(architecture),
            schedule=Schedule(**values.get("schedule", {})),
            variant=variant if isinstance(variant, str) else None,
            distilled=Distilled.from_dict(values.get("distilled")),
        )
    except ConfigError as error:
        raise ConfigError(f"{file} has an impossible 'config' in its metadata: {error}") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file} has an unreadable 'config' in its metadata: {str(error)[:120]}") from None


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


def read_weights(header: CheckpointHeader) -> Iterator[tuple[str, Tensor]]:
    """Every weight once, file by file; those of quantized layers, and those with an update, as float32.

    Raises:
        QuantizationError: a format other than scaled fp8 and int8.
        CheckpointError: the update is another model's.
    """
    if header.update is not None:
        update = read_update(header.update, header.shapes)
        for name, weight in read_weights(replace(header, update=None)):
            yield name, update.add_to(name, weight)
        return
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


def read_weight(header: CheckpointHeader, name: str) -> Tensor:
    """One of :func:`read_weights`, without the others being read."""
    beside = [f"{name.removesuffix('.weight')}.{suffix}" for suffix in quantization.BESIDE]
    sources = {key: header.sources[key] for key in (name, *beside) if key in header.sources}
    alone = replace(header, shapes={name: header.shapes[name]}, sources=sources, update=None, quantized={
        layer: settings for layer, settings in header.quantized.items() if f"{layer}.weight" == name
    })  # fmt: skip
    weight = next(weight for _, weight in read_weights(alone))
    return weight if header.update is None else read_update(header.update, header.shapes).add_to(name, weight)


def _read(header: CheckpointHeader, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Those of ``names`` that the files have, file by file."""
    wanted = set(names)
    for first in header.files:
        with ExitStack() as stack:
            # A weight of several tensors may reach into the next shard.
            opened = {first: stack.enter_context(open_tensors(first))}

            def get(file: Path, name: str, stack: ExitStack = stack, opened: dict = opened) -> Tensor:
                if file not in opened:
                    opened[file] = stack.enter_context(open_tensors(file))
                return opened[file].get_tensor(name)

            for name, source in header.sources.items():
                if name in wanted and source.parts[0][0] == first:
                    yield name, source.read(get)
