"""Writing a ``.safetensors`` file tensor by tensor.

The ``safetensors`` library writes a file from tensors that are all in memory; a checkpoint may be larger than that. The
format allows more: an 8-byte little-endian length, a JSON header that places every tensor, then the bytes. The header
needs names, dtypes and shapes only, so it goes first and the tensors follow in any order.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

#: Names of the dtypes in a header.
DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Slot(NamedTuple):
    """What a file will hold under a name."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """How many of them it takes."""
        return prod(self.shape) * self.dtype.itemsize


class DiskSpaceError(ValueError):
    """The file would not fit on its disk."""


@contextmanager
def safetensors_writer(
    path: Path, slots: Mapping[str, Slot], metadata: Mapping[str, str]
) -> Iterator[Callable[[str, Tensor], None]]:
    """Yield ``write(name, tensor)``, to be called once for every slot; the file appears when the block has ended well.

    Until then it is ``path`` with ``.part`` at its end, which a fault or Ctrl-C removes.

    Raises:
        DiskSpaceError: before anything is written.
        ValueError: a tensor that is not what its slot says, or slots that were left empty.
    """
    header, offsets, total = _lay_out(slots, metadata)
    free = shutil.disk_usage(path.parent).free
    if total > free:
        raise DiskSpaceError(
            f"{path} needs {total / 2**30:.1f} GiB and {path.parent} has {free / 2**30:.1f} GiB free: make room or"
            " write to another disk"
        )
    partial = path.with_name(path.name + ".part")
    empty = set(slots)

    def write(name: str, tensor: Tensor) -> None:
        if Slot(tensor.dtype, tuple(tensor.shape)) != slots[name]:
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, its place is for {slots[name]}")
        file.seek(offsets[name])
        file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        empty.remove(name)

    try:
        with open(partial, "wb") as file:
            file.write(header)
            file.truncate(total)
            yield write
        if empty:
            raise ValueError(f"{len(empty)} tensors were not written, {min(empty)} among them")
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _lay_out(slots: Mapping[str, Slot], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int], int]:
    """The header's bytes, the place of every tensor in the file, and the file's size."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    begins, position = {}, 0
    # The widest values first: then each tensor begins at a multiple of its value's size.
    for name in sorted(slots, key=lambda name: (-slots[name].dtype.itemsize, name)):
        slot = slots[name]
        begins[name], end = position, position + slot.bytes
        entries[name] = {"dtype": _NAMES[slot.dtype], "shape": list(slot.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: len(header) + begin for name, begin in begins.items()}, len(header) + position
