"""The weights that a header describes, file by file: as they are stored, or as floats where they are quantized."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from . import quantization
from .header import CheckpointHeader
from .tensor_files import open_tensors
from .update import read_update


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
    return weight if header.update is None else read_update(header.update, header.shapes, name).add_to(name, weight)


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
