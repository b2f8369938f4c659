"""From a release to single files for ComfyUI, at 16 bits or with the blocks' matrices at 8.

A tensor is read, converted and written before the next one is read: memory depends on the largest tensor, not on the
checkpoint.

At 8 bits only the matrices of the blocks are stored, 95% of the 12 B model. The embeddings of the inputs and the output
layer are too few to be worth it: in fp8 either costs about as much accuracy as all blocks together. The modulations,
which act on every block, and the time embedders cost half as much each (docs/memory.md). The depth head keeps the
source's precision in every file.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..encoders.autoencoder_files import DECODER_FILE, ENCODER_FILE, load_autoencoder
from ..parts import BUILT_IN_LICENSE, is_built_in
from ..text_file import read_text
from ..weights import quantization
from ..weights.header import CheckpointHeader, check_tensors, read_header
from ..weights.reading import read_weight
from ..weights.safetensors_writer import DTYPES, Slot, safetensors_writer
from ..weights.tensor_files import CheckpointError, open_safetensors, open_tensors
from .bundling import autoencoder_part, parts_beside, text_encoder_part, transformer_part

Precision = Literal["bf16", "fp32", "fp8", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

#: progress(done, total) in tensors; raise in it to cancel.
Progress = Callable[[int, int], None]

_FLOATS: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}
_QUANTIZED = {
    "fp8": (torch.float8_e4m3fn, quantization.quantize_fp8),
    "int8": (torch.int8, quantization.quantize_int8),
}
_BLOCKS = re.compile(r"(double_blocks|single_blocks|depth_decoder_blocks)\.\d+\..*\.weight$")
_DEPTH_HEAD = "depth_final_layer."


class ConversionError(ValueError):
    """A source that cannot be converted, or an output that must not be written."""


def is_autoencoder(source: Path) -> bool:
    """Whether ``source`` is one of a release's two autoencoder files, or a folder with these and no transformer."""
    if source.is_dir():
        own = {file.name for file in source.glob("*.safetensors")}
        return bool(own) and own <= {ENCODER_FILE, DECODER_FILE}
    return source.name in (ENCODER_FILE, DECODER_FILE)


def convert_model(
    source: Path,
    out: Path,
    *,
    to: Precision | None = None,
    text_encoder: Path | None = None,
    vae: Path | None = None,
    bundle: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CheckpointHeader:
    """Write a transformer as one file under the names of FLUX.2's own checkpoints, its configuration in the metadata.

    Args:
        source: release folder, possibly in shards, ``.safetensors`` file, or a folder that is a base and an update of
            it, which are added up.
        out: ``.safetensors`` file; it appears when it is complete.
        to: precision of the weights. None: bf16, or as it is stored where the source is quantized already and parts are
            put beside it.
        text_encoder, vae: parts to put into the file too, in their own precision: Qwen3 (folder or file) or the
            word-level text encoder of a small model; an autoencoder (folder or file).
        bundle: also put in the parts that lie in the model's file or beside it and are not named.

    Returns:
        What ``source`` says of itself.

    Raises:
        CheckpointError, ConfigError: ``source`` is truncated, foreign, or lacks tensors.
        ConversionError: it is quantized already and ``to`` names a precision or there is nothing to put beside it, or
            ``out`` must not be written.
        BundleError, AutoencoderError: a part is damaged, foreign, or another model's.
        DiskSpaceError: ``out`` would not fit.
    """
    header = read_header(source)
    architecture = header.architecture
    if problems := check_tensors(header.shapes, architecture):
        raise CheckpointError(f"{source} does not hold the model it should: {'; '.join(problems)}")
    eight_bit = sorted({name for name in header.dtypes.values() if DTYPES.get(name, torch.int8).itemsize == 1})
    # A base with its update is added up in float32, whatever the precision of either.
    merge = header.update is not None
    keep = not merge and bool(header.quantized or eight_bit)
    if keep and (to is not None or not (bundle or text_encoder or vae)):
        formats = {settings["format"] for settings in header.quantized.values()} or eight_bit
        raise ConversionError(
            f"{source} is quantized already ({', '.join(sorted(formats))}): convert the 16-bit release instead, or"
            " name no precision to put parts beside it as it is"
        )
    parts = [] if vae is None else [autoencoder_part(vae, architecture)]
    parts += [] if text_encoder is None else [text_encoder_part(text_encoder, architecture)]
    if bundle:
        parts += parts_beside(source, header, text_encoder=text_encoder is None, vae=vae is None)
    own = [*header.files, *([header.update] if header.update else [])]
    check_output(out, [*own, *(file for part in parts for file in part.files)], overwrite=overwrite)

    precision, converted = to or "bf16", {} if keep else header.shapes
    parts = [transformer_part(header), *parts] if keep else parts
    slots: dict[str, Slot] = {}
    for name, shape in converted.items():
        stored = torch.float32 if merge else DTYPES[header.dtypes[name]]
        slots |= slots_of(name, shape, stored, precision)
    metadata = {"format": "pt"} | header.metadata | {"config": _configuration(source, header)}
    metadata.pop(quantization.METADATA, None)  # every quantized layer has a marker of its own
    for other in parts:
        slots |= other.slots
        metadata |= other.metadata
    total = len(converted) + sum(len(other.slots) for other in parts)
    with safetensors_writer(out, slots, metadata) as write:
        for done, name in enumerate(converted):
            if progress is not None:
                progress(done, total)
            # Opened anew for every tensor: pages of a mapped file count as memory for as long as the map exists.
            weight = read_weight(header, name) if merge else header.sources[name].read(_get_tensor)
            for part, tensor in _convert(name, weight, slots, precision).items():
                write(part, tensor)
            del weight
        beside = (tensor for other in parts for tensor in other.tensors())
        for done, (name, tensor) in enumerate(beside, len(converted)):
            if progress is not None:
                progress(done, total)
            write(name, tensor)
        if progress is not None:
            progress(total, total)
    return header


def convert_autoencoder(source: Path, out: Path, *, to: Precision | None = None, overwrite: bool = False) -> None:
    """Write a release's two autoencoder files as the one file that ComfyUI's VAE loader opens.

    Args:
        source: either of the two files, with the other beside it, or their folder.
        to: bf16 or fp32; None keeps the precision. The statistics of the latents keep theirs.

    Raises:
        AutoencoderError, CheckpointError: a half is missing, truncated or foreign, or the two are of different models.
        ConversionError: an 8-bit precision, or ``out`` must not be written.
        DiskSpaceError: ``out`` would not fit.
    """
    if to not in (None, *_FLOATS):
        raise ConversionError(f"an autoencoder can be bf16 or fp32, not {to}: convolutions are not quantized")
    load_autoencoder(source)  # says what is wrong where something is
    folder = source if source.is_dir() else source.parent
    halves = {"encoder.": folder / ENCODER_FILE, "decoder.": folder / DECODER_FILE}
    check_output(out, list(halves.values()), overwrite=overwrite)

    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {"format": "pt"}
    for prefix, path in halves.items():
        with open_safetensors(path) as file:
            metadata |= file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
                tensor = file.get_tensor(name)
                if name.startswith("bn."):
                    tensors[name] = tensor
                else:
                    tensors[prefix + name] = tensor if to is None else tensor.to(_FLOATS[to])
    slots = {name: Slot(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with safetensors_writer(out, slots, metadata) as write:
        for name, tensor in tensors.items():
            write(name, tensor)


def check_output(out: Path, sources: list[Path], *, overwrite: bool) -> None:
    """Raise ConversionError for an output that is no ``.safetensors`` file, a source, or there already."""
    if out.suffix != ".safetensors":
        raise ConversionError(f"the output {out} must be a file whose name ends in .safetensors")
    if not out.parent.is_dir():
        raise ConversionError(f"the folder {out.parent} does not exist: make it first")
    if out.resolve() in {source.resolve() for source in sources}:
        raise ConversionError(f"{out} is the file that is converted: name another output")
    if out.is_dir() or (out.exists() and not overwrite):
        raise ConversionError(f"{out} exists already: name another output, or let it be overwritten (--overwrite)")


def slots_of(name: str, shape: tuple[int, ...], stored: torch.dtype, to: Precision) -> dict[str, Slot]:
    """The tensors that a weight of a transformer, ``stored`` in this dtype, becomes."""
    if name.startswith(_DEPTH_HEAD):
        return {name: Slot(stored, shape)}
    if to not in _QUANTIZED or len(shape) != 2 or not _BLOCKS.match(name):
        return {name: Slot(_FLOATS.get(to, torch.bfloat16), shape)}
    dtype, quantize = _QUANTIZED[to]
    layer = name.removesuffix(".weight")
    # The settings depend on the input width alone, so a single row tells their length.
    marker = quantization.write_marker(quantize(torch.zeros(1, shape[1])).settings)
    return {
        name: Slot(dtype, shape),
        f"{layer}.weight_scale": Slot(torch.float32, () if to == "fp8" else (shape[0], 1)),
        f"{layer}.{quantization.MARKER}": Slot(marker.dtype, tuple(marker.shape)),
    }


def _get_tensor(file: Path, name: str) -> Tensor:
    with open_tensors(file) as tensors:
        return tensors.get_tensor(name)


def _convert(name: str, weight: Tensor, slots: dict[str, Slot], to: Precision) -> dict[str, Tensor]:
    layer = name.removesuffix(".weight")
    if f"{layer}.{quantization.MARKER}" not in slots:
        return {name: weight.to(slots[name].dtype)}
    values, scale, settings = _QUANTIZED[to][1](weight)
    return {
        name: values,
        f"{layer}.weight_scale": scale,
        f"{layer}.{quantization.MARKER}": quantization.write_marker(settings),
    }


def _configuration(source: Path, header: CheckpointHeader) -> str:
    """The source's whole configuration, with the sizes, the schedule and a built-in model's license spelled out."""
    values: dict[str, Any] = json.loads(header.metadata.get("config", "{}"))
    beside = header.files[0].parent / "config.json"
    if source.is_dir() and beside.exists() and header.config.architecture is not None:
        values |= json.loads(read_text(beside))
    if header.update is not None:
        values |= json.loads(read_text(source / "config.json"))
        for name in ("base", "text_encoder", "vae"):  # where they are is the folder's business
            values.pop(name, None)
    if is_built_in(source):  # which says so in its README
        values["license"] = BUILT_IN_LICENSE
    values |= {"architecture": header.architecture.to_dict(), "schedule": asdict(header.config.schedule)}
    return json.dumps(values)
