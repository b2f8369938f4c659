"""The difference between two models of one architecture, as an update of the first within a number of bytes.

Training all weights moves every matrix in all directions, some much more than others. Of each matrix's difference
either the largest singular components are kept, as a low-rank pair, or all of it, or nothing. One rule decides for all
matrices: what is kept is worth its bytes at one price, in squared difference a byte. The price is the lowest at which
the file has the size that was asked for. So a matrix whose difference is nearly one direction takes a rank of a few,
and one that moved evenly is stored whole, where a pair of a high rank would be larger than that.

A matrix is read, decomposed and let go before the next one, twice: first for its singular values, with which the price
is found, and then for what is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from .convert import ConversionError, check_output
from .header import CheckpointHeader, read_header
from .reading import read_weight
from .safetensors_writer import Slot, safetensors_writer
from .tensor_files import CheckpointError
from .update import DIFFERENCE, PAIR, PREFIX, WHOLE

Values = Literal["fp8", "bf16"]
VALUES: tuple[Values, ...] = get_args(Values)
_DTYPES: dict[Values, torch.dtype] = {"fp8": torch.float8_e4m3fn, "bf16": torch.bfloat16}
_FP8_MAX = 448.0

#: Bytes of a tensor's entry in the header of a file, with room to spare.
_ENTRY = 160
_HALVINGS = 100
#: Squared singular values that are so much smaller than the largest are rounding of the decomposition.
_ROUNDING = 1e-12

#: Gates of one number, and the matrices whose output they multiply. ComfyUI patches the weights of layers alone, which
#: a gate is not: its change goes into its matrix.
_GATES = {
    "cross_alpha_img": "time_in_depth_to_img.out_layer.weight",
    "cross_alpha_depth": "time_in_rgb_to_depth.out_layer.weight",
}

#: progress(done, total) in matrices, each counted twice; raise in it to cancel.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Kept:
    """What is kept of a matrix's difference: ``rank`` components, or all of it where ``whole``.

    ``lost`` is the share of the squared difference that is not kept.
    """

    shape: tuple[int, int]
    rank: int
    whole: bool
    lost: float

    @property
    def values(self) -> int:
        rows, columns = self.shape
        return rows * columns if self.whole else self.rank * (rows + columns)


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
) -> dict[str, Kept]:
    """Write what turns ``base`` into ``model`` as a LoRA file.

    Args:
        base, model: release folders or ``.safetensors`` files of one architecture.
        out: ``.safetensors`` file; in its metadata is how a distilled ``model`` is to be run.
        size: the largest number of bytes that the file may have.
        values: 8-bit floats with a scale for each tensor, or bfloat16.
        device: where matrices are decomposed.

    Returns:
        What is kept, by the matrices' names.

    Raises:
        CheckpointError, ConfigError: a model is truncated or foreign, or the two are of different architectures.
        ConversionError: ``out`` must not be written, or not even the small tensors fit into ``size``.
        DiskSpaceError: ``out`` would not fit on its disk.
    """
    first, second = read_header(base), read_header(model)
    if first.shapes != second.shapes:
        differing = sorted(name for name in first.shapes.keys() | second.shapes.keys()
                           if first.shapes.get(name) != second.shapes.get(name))  # fmt: skip
        raise CheckpointError(f"{model} is not of the architecture of {base}: they differ in {differing[0]}")
    sources = [file for header in (first, second) for file in (*header.files, header.update) if file is not None]
    check_output(out, sources, overwrite=overwrite)
    matrices = [name for name, shape in first.shapes.items() if len(shape) == 2]
    gates = {matrix: _open_gate(first, gate) for gate, matrix in _GATES.items()}

    def difference(name: str) -> Tensor:
        before, after = (read_weight(header, name).to(device).float() for header in (first, second))
        gate = gates.get(name)
        return after * (read_weight(second, gate[0]).item() / gate[1]) - before if gate else after - before

    def decomposed(done: int, name: str) -> Tensor:
        if progress is not None:
            progress(done, 2 * len(matrices))
        return difference(name)

    unseen = {gate[0] for gate in gates.values() if gate}
    small = [name for name in first.shapes if name not in matrices and name not in unseen]
    others = {name: difference(name).to("cpu", torch.bfloat16) for name in small}
    others = {name: tensor for name, tensor in others.items() if tensor.any()}
    spectra = {}
    for number, name in enumerate(matrices):
        spectra[name] = torch.linalg.svdvals(decomposed(number, name)).double().cpu()
    width = _DTYPES[values].itemsize
    fixed = sum(2 * tensor.numel() + _ENTRY for tensor in others.values()) + 3 * _ENTRY * len(matrices)
    if fixed > size:
        raise ConversionError(f"{size} bytes are too few: names and small tensors alone take {fixed}")
    kept = choose(spectra, {name: first.shapes[name] for name in matrices}, (size - fixed) // width)  # type: ignore[misc]

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
        for number, (name, part) in enumerate(kept.items(), len(matrices)):
            for stored, tensor in _tensors(name, part, decomposed(number, name), _DTYPES[values]).items():
                write(stored, tensor)
    return kept


def _open_gate(header: CheckpointHeader, gate: str) -> tuple[str, float] | None:
    """A gate's name and value in the base; None where it is closed or there is none, and nothing passes its matrix."""
    value = read_weight(header, gate).item() if gate in header.shapes else 0.0
    return (gate, value) if value else None


def choose(spectra: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, int]], most: int) -> dict[str, Kept]:
    """What to keep of every matrix so that the least squared difference is lost within ``most`` values.

    Args:
        spectra: singular values in descending order, float64.
    """

    def at(price: float) -> dict[str, Kept]:
        return {name: _at_price(values, shapes[name], price) for name, values in spectra.items()}

    def count(price: float) -> int:
        return sum(part.values for part in at(price).values())

    high = max(float(values[0]) ** 2 for values in spectra.values()) + 1e-30
    low = high * _ROUNDING
    if count(low) <= most:
        return at(low)
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5  # prices span many orders of magnitude
        low, high = (middle, high) if count(middle) > most else (low, middle)
    return at(high)


def _at_price(values: Tensor, shape: tuple[int, int], price: float) -> Kept:
    rows, columns = shape
    squares = values.square()
    total = float(squares.sum())
    rank = int((squares > price * (rows + columns)).sum())
    lost = float(squares[rank:].sum())
    whole = total > 0 and price * rows * columns <= lost + price * rank * (rows + columns)
    return Kept(shape, 0 if whole else rank, whole, 0.0 if whole or total == 0 else lost / total)


def _slots(name: str, part: Kept, dtype: torch.dtype) -> dict[str, Slot]:
    layer, (rows, columns) = PREFIX + name.removesuffix(".weight"), part.shape
    if part.whole:
        shapes = {WHOLE[0]: Slot(torch.float32, (1, 1)), WHOLE[1]: Slot(dtype, (rows, columns))}
    elif part.rank:
        slots = Slot(dtype, (part.rank, columns)), Slot(dtype, (rows, part.rank)), Slot(torch.float32, ())
        shapes = dict(zip(PAIR, slots, strict=True))
    else:
        shapes = {}
    return {layer + end: slot for end, slot in shapes.items()}


def _tensors(name: str, part: Kept, difference: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    layer = PREFIX + name.removesuffix(".weight")
    if part.whole:
        values, scale = _scaled(difference, dtype)
        found = zip(WHOLE, (torch.full((1, 1), scale), values), strict=True)
    elif part.rank:
        left, singular, right = torch.linalg.svd(difference, full_matrices=False)
        # Both halves get the root of the singular values, and so values of one order of magnitude.
        root = singular[: part.rank].sqrt()
        down, scale_of_down = _scaled(root[:, None] * right[: part.rank], dtype)
        up, scale_of_up = _scaled(left[:, : part.rank] * root, dtype)
        found = zip(PAIR, (down, up, torch.tensor(part.rank * scale_of_down * scale_of_up)), strict=True)
    else:
        return {}
    return {layer + end: tensor for end, tensor in found}


def _scaled(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Stored values and the scale that gives back the given ones."""
    if dtype != torch.float8_e4m3fn:
        return values.to("cpu", dtype), 1.0
    scale = float(values.abs().max().clamp(min=1e-30)) / _FP8_MAX
    return (values / scale).clamp(-_FP8_MAX, _FP8_MAX).to("cpu", dtype), scale
