"""The difference between two models of one architecture, as an update of the first within a number of bytes.

Training all weights moves every matrix in all directions, some much more than others. Of each matrix's difference
either the largest singular components are kept, as a low-rank pair, or all of it, or nothing. One rule decides for all
matrices: what is kept is worth its bytes at one price, in squared difference a byte. The price is the lowest at which
the file has the size that was asked for. So a matrix whose difference is nearly one direction takes a rank of a few,
and one that moved evenly is stored whole, where a pair of a high rank would be larger than that. With metrics of the
layers the squared difference is not that of the weights but what it changes in the model's predictions (see
:mod:`.weighted_svd`).

A matrix is read, decomposed and let go before the next one, twice: first for its singular values, with which the price
is found, and then for what is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..weights.header import CheckpointHeader, read_header
from ..weights.reading import read_weight
from ..weights.safetensors_writer import Slot, safetensors_writer
from ..weights.tensor_files import CheckpointError
from ..weights.update import DIFFERENCE, PAIR, PREFIX, WHOLE
from .convert import ConversionError, check_output
from .rank_allocation import Allocation, allocate
from .weighted_svd import ErrorMetric, spectrum, stored_pair, stored_whole

Values = Literal["fp8", "bf16"]
VALUES: tuple[Values, ...] = get_args(Values)
_DTYPES: dict[Values, torch.dtype] = {"fp8": torch.float8_e4m3fn, "bf16": torch.bfloat16}

#: Bytes of a tensor's entry in the header of a file, with room to spare.
_ENTRY = 160

#: Gates of one number, and the matrices whose output they multiply. ComfyUI patches the weights of layers alone, which
#: a gate is not: its change goes into its matrix.
_GATES = {
    "cross_alpha_img": "time_in_depth_to_img.out_layer.weight",
    "cross_alpha_depth": "time_in_rgb_to_depth.out_layer.weight",
}

#: progress(done, total) in matrices, each counted twice; raise in it to cancel.
Progress = Callable[[int, int], None]

#: The metric of a weight by its name; None where there is none.
Metrics = Callable[[str], ErrorMetric | None]


def write_difference(
    base: Path,
    model: Path,
    out: Path,
    *,
    size: int,
    values: Values = "fp8",
    device: torch.device | str = "cpu",
    overwrite: bool = False,
    progress: Progress | None = None,
    metrics: Metrics | None = None,
) -> dict[str, Allocation]:
    """Write what turns ``base`` into ``model`` as a LoRA file.

    Args:
        base, model: release folders or ``.safetensors`` files of one architecture.
        out: ``.safetensors`` file; in its metadata is how a distilled ``model`` is to be run.
        size: the largest number of bytes that the file may have.
        values: 8-bit floats with a scale for each tensor, or bfloat16.
        device: where matrices are decomposed.
        metrics: of ``model``'s layers, in which components are chosen; None: in squared differences of weights. It is
            asked when all else is known to be in order.

    Returns:
        What is kept, by the matrices' names.

    Raises:
        CheckpointError, ConfigError: a model is truncated or foreign, or the two are of different architectures.
        ConversionError: ``out`` must not be written, the models are equal, or not even the small tensors fit into
            ``size``.
        DiskSpaceError: ``out`` would not fit on its disk.
    """
    first, second = read_header(base), read_header(model)
    if first.shapes != second.shapes:
        differing = sorted(name for name in first.shapes.keys() | second.shapes.keys()
                           if first.shapes.get(name) != second.shapes.get(name))  # fmt: skip
        raise CheckpointError(f"{model} is not of the architecture of {base}: they differ in {differing[0]}")
    sources = [file for header in (first, second) for file in (*header.files, header.update) if file is not None]
    check_output(out, sources, overwrite=overwrite)
    shapes = {name: (shape[0], shape[1]) for name, shape in first.shapes.items() if len(shape) == 2}
    gates = {matrix: _gate(first, second, gate) for gate, matrix in _GATES.items()}

    def difference(name: str) -> Tensor:
        before, after = (read_weight(header, name).to(device).float() for header in (first, second))
        gate = gates.get(name)
        return after * (gate.after / gate.before) - before if gate else after - before

    def decomposed(done: int, name: str) -> tuple[Tensor, ErrorMetric | None]:
        if progress is not None:
            progress(done, 2 * len(shapes))
        found = metrics(name) if metrics else None
        if (gate := gates.get(name)) and found:
            # Predictions hang on what passes the gate, and the metric is of the model's own, not of the base's.
            found = found.times((gate.before / gate.after) ** 2) if gate.after else None
        return difference(name), found

    unseen = {gate.name for gate in gates.values() if gate}
    small = [name for name in first.shapes if name not in shapes and name not in unseen]
    others = {name: difference(name).to("cpu", torch.bfloat16) for name in small}
    others = {name: tensor for name, tensor in others.items() if tensor.any()}
    width = _DTYPES[values].itemsize
    fixed = sum(2 * tensor.numel() + _ENTRY for tensor in others.values()) + 3 * _ENTRY * len(shapes)
    if fixed > size:
        raise ConversionError(f"{size} bytes are too few: names and small tensors alone take {fixed}")
    kept = allocate(_spectra(shapes, decomposed), shapes, (size - fixed) // width)
    if not others and not any(part.values or part.lost for part in kept.values()):
        raise ConversionError(f"{base} and {model} have the same weights: there is no difference to write")

    slots = {PREFIX + name.removesuffix(".weight") + DIFFERENCE: Slot(tensor.dtype, tuple(tensor.shape))
             for name, tensor in others.items()}  # fmt: skip
    for name, part in kept.items():
        slots |= _slots(name, part, _DTYPES[values])
    metadata = {"format": "pt"}
    if second.config.distilled is not None:
        metadata["distilled"] = json.dumps(second.config.distilled.to_dict())
    with safetensors_writer(out, slots, metadata) as write:
        for name, tensor in others.items():
            write(PREFIX + name.removesuffix(".weight") + DIFFERENCE, tensor)
        for number, (name, part) in enumerate(kept.items(), len(shapes)):
            for stored, tensor in _tensors(name, part, *decomposed(number, name), _DTYPES[values]).items():
                write(stored, tensor)
    if progress is not None:
        progress(2 * len(shapes), 2 * len(shapes))
    return kept


class _Gate(NamedTuple):
    """A gate that is open in the base, and its two values."""

    name: str
    before: float
    after: float


def _gate(first: CheckpointHeader, second: CheckpointHeader, name: str) -> _Gate | None:
    """None where the base's gate is closed or there is none, and nothing passes its matrix."""
    before = read_weight(first, name).item() if name in first.shapes else 0.0
    return _Gate(name, before, read_weight(second, name).item()) if before else None


def _spectra(
    shapes: Mapping[str, tuple[int, int]], decomposed: Callable[[int, str], tuple[Tensor, ErrorMetric | None]]
) -> dict[str, Tensor]:
    """Singular values of every matrix's difference, all in one unit."""
    spectra: dict[str, Tensor] = {}
    unmeasured: list[str] = []
    costs = squares = 0.0
    for number, name in enumerate(shapes):
        difference, metric = decomposed(number, name)
        spectra[name] = spectrum(difference, metric)
        if metric is None:
            unmeasured.append(name)
        else:
            costs += float(spectra[name].square().sum())
            squares += float(difference.square().sum())
    if squares:
        for name in unmeasured:  # which cost as much a weight as the others do on average
            spectra[name] = spectra[name] * (costs / squares) ** 0.5
    return spectra


def _slots(name: str, part: Allocation, dtype: torch.dtype) -> dict[str, Slot]:
    layer, (rows, columns) = PREFIX + name.removesuffix(".weight"), part.shape
    if part.whole:
        shapes = {WHOLE[0]: Slot(torch.float32, (1, 1)), WHOLE[1]: Slot(dtype, (rows, columns))}
    elif part.rank:
        slots = Slot(dtype, (part.rank, columns)), Slot(dtype, (rows, part.rank)), Slot(torch.float32, ())
        shapes = dict(zip(PAIR, slots, strict=True))
    else:
        shapes = {}
    return {layer + end: slot for end, slot in shapes.items()}


def _tensors(
    name: str, part: Allocation, difference: Tensor, metric: ErrorMetric | None, dtype: torch.dtype
) -> dict[str, Tensor]:
    layer = PREFIX + name.removesuffix(".weight")
    if part.whole:
        stored = stored_whole(difference, metric, dtype)
        found = zip(WHOLE, (torch.full((1, 1), stored.scale), stored.values.cpu()), strict=True)
    elif part.rank:
        down, up = stored_pair(difference, metric, part.rank, dtype)
        alpha = torch.tensor(part.rank * down.scale * up.scale)
        found = zip(PAIR, (down.values.cpu(), up.values.cpu(), alpha), strict=True)
    else:
        return {}
    return {layer + end: tensor for end, tensor in found}
