"""Tensors that grow row by row on disk, and become one safetensors file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ...mforce_core.weights.safetensors_writer import Slot, safetensors_writer


class Spool:
    """One raw file a tensor. The rows of a tensor all have one dtype and shape."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._slots: dict[str, Slot] = {}

    def append(self, name: str, rows: Tensor) -> None:
        """Add rows (n, ...); n may be 0, which settles dtype and shape."""
        dtype, (count, *shape) = self._slots.get(name, Slot(rows.dtype, (0, *rows.shape[1:])))
        if rows.dtype != dtype or list(rows.shape[1:]) != shape:
            raise ValueError(f"rows of {name} are {rows.dtype} {tuple(rows.shape[1:])}, not {dtype} {tuple(shape)}")
        with (self._folder / name).open("ab") as file:
            file.write(rows.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self._slots[name] = Slot(dtype, (count + len(rows), *shape))

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write everything to ``path``, which appears when it is whole; memory is mapped, not filled."""
        with safetensors_writer(path, self._slots, metadata) as write:
            for name, (dtype, shape) in self._slots.items():
                write(name, _mapped(self._folder / name, dtype, shape))


@contextmanager
def spool(folder: Path) -> Iterator[Spool]:
    """A spool in a folder of its own, which is emptied before and gone after."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield Spool(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _mapped(path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if prod(shape) == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.from_file(str(path), shared=False, size=prod(shape), dtype=dtype).view(shape)
