"""A model that is another one plus an update: what lies in the file of the update, and how it is added.

A folder without weights of its own names its base in ``config.json`` and holds ``lora.safetensors``. The names in that
file are those that ComfyUI's LoraLoader reads, so that the same file serves on the base there:

- ``LAYER.lora_A.weight`` (r, in), ``LAYER.lora_B.weight`` (out, r) and ``LAYER.alpha``: alpha / r times B A is added;
- ``LAYER.lokr_w1`` (1, 1) and ``LAYER.lokr_w2`` (out, in): their product is added, a whole difference in few bits;
- ``NAME.diff``: added as it is.

All values may be 8-bit floats, whose scale is in alpha or in ``lokr_w1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .tensor_files import CheckpointError, open_tensors

UPDATE_FILE = "lora.safetensors"

#: ComfyUI's name of the transformer.
PREFIX = "diffusion_model."

#: Ends of the names of each form.
PAIR = (".lora_A.weight", ".lora_B.weight", ".alpha")
WHOLE = (".lokr_w1", ".lokr_w2")
DIFFERENCE = ".diff"


@dataclass(frozen=True)
class Update:
    """The tensors of an update by their names without ComfyUI's prefix."""

    tensors: Mapping[str, Tensor]

    def add_to(self, name: str, weight: Tensor) -> Tensor:
        """A weight with its update, in float32; a weight without one as it is."""
        found = self._difference(name.removesuffix(".weight"))
        return weight if found is None else weight.float() + found

    def _difference(self, layer: str) -> Tensor | None:
        parts = {end: self.tensors.get(layer + end) for end in (*PAIR, *WHOLE, DIFFERENCE)}
        down, up, alpha = (parts[end] for end in PAIR)
        if down is not None and up is not None and alpha is not None:
            return float(alpha) / down.shape[0] * (up.float() @ down.float())
        scale_of_whole, whole = (parts[end] for end in WHOLE)
        if scale_of_whole is not None and whole is not None:
            return float(scale_of_whole) * whole.float()
        difference = parts[DIFFERENCE]
        return None if difference is None else difference.float()


def read_update(path: Path, shapes: Mapping[str, tuple[int, ...]], only: str | None = None) -> Update:
    """An update of the weights with these names and shapes.

    Args:
        path: the file.
        shapes: of all weights of the base, by name.
        only: the one weight whose tensors are read; None: all.

    Raises:
        CheckpointError: the file is damaged, or belongs to another model.
    """
    with open_tensors(path) as file:
        stored = {name.removeprefix(PREFIX): name for name in file.keys()}  # noqa: SIM118
        sizes = {name: tuple(file.get_slice(full).get_shape()) for name, full in stored.items()}
        _check_sizes(path, sizes, shapes)
        wanted = set(stored)
        if only is not None:
            wanted &= {only.removesuffix(".weight") + end for end in (*PAIR, *WHOLE, DIFFERENCE)}
        return Update({name: file.get_tensor(stored[name]) for name in wanted})


def _check_sizes(path: Path, sizes: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError where a tensor of the update fits none of the weights."""
    expected: set[str] = set()
    for name, shape in shapes.items():
        layer = name.removesuffix(".weight")
        # Of a pair the rank is free.
        rank = sizes.get(layer + PAIR[0], (0,))[0]
        forms: list[dict[str, tuple[int, ...]]] = [{layer + DIFFERENCE: shape}]
        if len(shape) == 2:
            forms += [
                dict(zip((layer + end for end in PAIR), ((rank, shape[1]), (shape[0], rank), ()), strict=True)),
                dict(zip((layer + end for end in WHOLE), ((1, 1), shape), strict=True)),
            ]
        for form in forms:
            if all(sizes.get(part) == size for part, size in form.items()):
                expected |= form.keys()
    if foreign := sorted(sizes.keys() - expected):
        raise CheckpointError(
            f"{path} is not an update of its base: {foreign[0]} {sizes[foreign[0]]}"
            f"{f' and {len(foreign) - 1} more' if len(foreign) > 1 else ''} fit none of its layers"
        )
