"""The parts that are written beside a transformer into one file: what each will take there, and how it is read.

Text encoders are read tensor by tensor while the file is written, since Qwen3 is as large as the transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..encoders.autoencoder_files import autoencoder_files, load_autoencoder, read_tensors
from ..encoders.qwen import LAYERS
from ..encoders.words import WORDS_FILE, load_text_encoder
from ..model.config import Architecture
from ..weights import quantization
from ..weights.bundle import (
    TEXT_PREFIX,
    VAE_PREFIXES,
    WORDS_PREFIX,
    file_with,
    has_words,
    locate,
    text_encoder_names,
    vae_prefix,
)
from ..weights.header import CheckpointHeader
from ..weights.named_parts import named_part
from ..weights.safetensors_writer import DTYPES, Slot
from ..weights.tensor_files import open_tensors

#: ComfyUI's names of Qwen3 by hidden size.
_QWEN = {2560: "qwen3_4b", 4096: "qwen3_8b"}


class BundleError(ValueError):
    """A part that cannot be put into the file."""


@dataclass(frozen=True)
class BundlePart:
    """A part under its names in the one file; ``read`` gives one tensor at a time."""

    slots: Mapping[str, Slot]
    read: Mapping[str, Callable[[], Tensor]]
    files: tuple[Path, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors, each read when it is asked for."""
        for name, read in self.read.items():
            yield name, read()


def transformer_part(header: CheckpointHeader) -> BundlePart:
    """A transformer as it is stored, quantized layers included, under names without a prefix.

    Raises:
        BundleError: it is quantized under the names of diffusers, whose matrices are cut otherwise.
    """
    places: dict[str, tuple[Path, str]] = {}
    for name, source in header.sources.items():
        if len(source.parts) > 1 or source.swapped:
            raise BundleError(
                f"{header.files[0]} is quantized under diffusers' names: convert the 16-bit model instead"
            )
        layer, _, kind = name.rpartition(".")
        if name != quantization.LEGACY_MARKER:
            places[f"{layer}.{quantization.RENAMED.get(kind, kind)}" if layer else name] = source.parts[0]
    slots, read, _ = _as_stored(places)
    for layer, settings in header.quantized.items():
        _mark(layer, settings, slots, read)
    return BundlePart(slots, read, tuple(header.files))


def autoencoder_part(path: Path, architecture: Architecture) -> BundlePart:
    """An autoencoder, in the precision in which it is stored; 168 MB, which are held at once.

    Raises:
        ValueError: not an autoencoder, or not one of this transformer.
    """
    channels = load_autoencoder(path).latent_channels
    if channels != architecture.in_channels:
        raise BundleError(f"{path} has latents of {channels} channels and the model needs {architecture.in_channels}")
    tensors = {VAE_PREFIXES[0] + name: tensor for name, tensor in read_tensors(path).items()}
    return _in_memory(tensors, tuple(autoencoder_files(path)))


def text_encoder_part(path: Path, architecture: Architecture) -> BundlePart:
    """A text encoder: the word-level one of a small model, or Qwen3 as a folder, a file, or in a one-file checkpoint.

    Raises:
        ValueError: neither, or not one of this transformer.
    """
    if path.is_dir() and (path / WORDS_FILE).exists():
        path = path / WORDS_FILE
    if path.is_dir() and (path / "text_encoder").is_dir():
        path = path / "text_encoder"
    location = locate(path)
    if "word_embedding.weight" in location or has_words(location):
        return _words_part(file_with(path, WORDS_PREFIX) if has_words(location) else path, architecture)
    inside = text_encoder_names(location)
    if len(inside) > 1:
        raise BundleError(f"{path} holds {len(inside)} text encoders ({', '.join(inside)}): give the file of one")
    own = next(iter(inside.values()), None) or {name: name for name in location}
    return _qwen_part(path, {name: (location[stored], stored) for name, stored in own.items()}, architecture)


def parts_beside(source: Path, header: CheckpointHeader, *, text_encoder: bool, vae: bool) -> list[BundlePart]:
    """The parts, of those asked for, that lie in a transformer's file, that its folder names, or that lie beside it.

    Raises:
        ValueError: there is no autoencoder, or a part is damaged.
    """
    architecture = header.architecture
    folder = source if source.is_dir() else source.parent
    parts = []
    if vae:
        prefix = vae_prefix(header.others)
        home = named_part(folder, "vae") or folder if prefix is None else file_with(source, prefix)
        try:
            parts.append(autoencoder_part(home, architecture))
        except ValueError as error:
            raise BundleError(f"there is no autoencoder to put into the file: {error}") from None
    if text_encoder:
        if text_encoder_names(header.others):
            parts.append(text_encoder_part(source, architecture))
        elif (named := named_part(folder, "text_encoder")) is not None:
            parts.append(text_encoder_part(named, architecture))
        elif (folder / WORDS_FILE).exists() or (folder / "text_encoder").is_dir():
            parts.append(text_encoder_part(folder, architecture))
    return parts


def _words_part(path: Path, architecture: Architecture) -> BundlePart:
    encoder = load_text_encoder(path)
    if encoder.dim != architecture.context_in_dim:
        raise BundleError(f"{path} gives {encoder.dim} features and the model needs {architecture.context_in_dim}")
    return _in_memory({f"{WORDS_PREFIX}word_embedding.weight": encoder.table}, (path,), encoder.metadata())


def _qwen_part(path: Path, own: Mapping[str, tuple[Path, str]], architecture: Architecture) -> BundlePart:
    """``own``: file and stored name by name."""
    # ComfyUI's names are those of Qwen3 with its language-model head; a folder may hold the model without it.
    bare = any(name.startswith("layers.0.") for name in own)
    own = {f"model.{name}" if bare or name == "lm_head.weight" else name: place for name, place in own.items()}
    slots, read, metadata = _as_stored(own)
    hidden = slots.get("model.layers.0.input_layernorm.weight")
    if hidden is None or "model.layers.0.self_attn.q_norm.weight" not in slots:
        raise BundleError(f"{path} is neither Qwen3 nor the word-level text encoder of a small model")
    if len(LAYERS) * hidden.shape[0] != architecture.context_in_dim:
        raise BundleError(
            f"{path} gives {len(LAYERS) * hidden.shape[0]} features and the model needs {architecture.context_in_dim}: "
            "Qwen3-8B is for klein-9B models such as the release, Qwen3-4B for klein-4B"
        )
    _mark_quantized(slots, read, metadata)
    prefix = f"{TEXT_PREFIX}{_QWEN.get(hidden.shape[0], 'qwen3')}.transformer."
    return BundlePart(
        {prefix + name: slot for name, slot in slots.items()},
        {prefix + name: reader for name, reader in read.items()},
        tuple(sorted({file for file, _ in own.values()})),
    )


def _as_stored(
    places: Mapping[str, tuple[Path, str]],
) -> tuple[dict[str, Slot], dict[str, Callable[[], Tensor]], dict[str, str]]:
    """Slots and readers of tensors, from their file and stored name, and the metadata of these files."""
    slots: dict[str, Slot] = {}
    metadata: dict[str, str] = {}
    for file in {file for file, _ in places.values()}:
        with open_tensors(file) as handle:
            metadata |= handle.metadata() or {}
            for name, (holder, stored) in places.items():
                if holder == file:
                    view = handle.get_slice(stored)
                    dtype, shape = view.get_dtype(), tuple(view.get_shape())
                    if dtype not in DTYPES:
                        raise BundleError(f"{file} stores {stored} as {dtype}, which cannot be copied")
                    slots[name] = Slot(DTYPES[dtype], shape)
    return slots, {name: _reader(file, stored) for name, (file, stored) in places.items()}, metadata


def _mark_quantized(slots: dict[str, Slot], read: dict[str, Callable[[], Tensor]], metadata: Mapping[str, str]) -> None:
    """Give quantized layers that the metadata alone names a marker each: the one file has other metadata."""
    if quantization.METADATA not in metadata:
        return
    for layer, settings in quantization.read_metadata(metadata[quantization.METADATA]).items():
        if f"{layer}.weight" in slots:
            _mark(layer, settings, slots, read)


def _mark(
    layer: str, settings: Mapping[str, Any], slots: dict[str, Slot], read: dict[str, Callable[[], Tensor]]
) -> None:
    """Give a layer a marker that says how it is quantized, where it has none."""
    name, marker = f"{layer}.{quantization.MARKER}", quantization.write_marker(settings)
    if name not in slots:
        slots[name], read[name] = Slot(marker.dtype, tuple(marker.shape)), _held(marker)


def _reader(file: Path, name: str) -> Callable[[], Tensor]:
    def read() -> Tensor:
        # Opened anew for every tensor: pages of a mapped file count as memory for as long as the map exists.
        with open_tensors(file) as handle:
            return handle.get_tensor(name)

    return read


def _held(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor


def _in_memory(
    tensors: Mapping[str, Tensor], files: tuple[Path, ...], metadata: Mapping[str, str] | None = None
) -> BundlePart:
    return BundlePart(
        {name: Slot(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()},
        {name: _held(tensor) for name, tensor in tensors.items()},
        files,
        metadata or {},
    )
