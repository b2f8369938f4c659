"""Files of named tensors: safetensors, and GGUF through the gguf package. Pickled formats are never opened."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..file_kinds import what_is
from ..reasons import reason_of


class CheckpointError(ValueError):
    """A checkpoint that cannot be opened or does not hold the model it should."""


class TensorFile(Protocol):
    """An open file of tensors; what ``safe_open`` gives, and `GgufFile`."""

    def __enter__(self) -> TensorFile: ...
    def __exit__(self, *exception: Any) -> None: ...
    def metadata(self) -> dict[str, str] | None: ...
    def keys(self) -> list[str]: ...
    def get_slice(self, name: str) -> Any: ...
    def get_tensor(self, name: str) -> Tensor: ...


def open_tensors(path: Path) -> TensorFile:
    """Open a ``.safetensors`` or ``.gguf`` file.

    Raises:
        CheckpointError: in one sentence, what is wrong with the file.
    """
    if path.suffix.lower() == ".gguf":
        return GgufFile(path)
    return open_safetensors(path)


def open_safetensors(path: Path) -> safe_open:
    """Open a file, saying in one sentence what is wrong where that fails.

    Raises:
        CheckpointError: the file is missing, cut short, or of another kind.
    """
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (SafetensorError, OSError, ValueError, OverflowError, MemoryError) as error:
        kind = what_is(path)
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder, not a file") from None
        if kind is not None:
            raise CheckpointError(f"{path} is not a .safetensors file but {kind}{_what_to_do(kind)}") from None
        reason = reason_of(error)[:200]
        raise CheckpointError(
            f"{path} is not a complete .safetensors file ({reason}): download it again; convert pickled formats first"
        ) from None


class GgufFile:
    """A GGUF file, whose quantized tensors come out as bfloat16.

    Raises:
        CheckpointError: damaged, of another kind, or the gguf package is missing.
    """

    def __init__(self, path: Path) -> None:
        try:
            import gguf
        except ModuleNotFoundError:
            raise CheckpointError(f"{path} is a GGUF file, which needs the gguf package: pip install gguf") from None
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist")
        try:
            reader = gguf.GGUFReader(path)
            self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        except Exception as error:  # the package indexes into the file by whatever its header says
            kind = what_is(path)
            reason = kind or reason_of(error)[:120]
            raise CheckpointError(f"{path} is not a whole GGUF file ({reason}): download it again") from None
        self._path, self._dequantize = path, gguf.quants.dequantize

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(self, *exception: Any) -> None:
        """The mapped file is let go with the last tensor."""

    def metadata(self) -> dict[str, str]:
        """The kinds of tensors by number, under "gguf"."""
        kinds = Counter(tensor.tensor_type.name for tensor in self._tensors.values())
        return {"gguf": ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())}

    def keys(self) -> list[str]:
        return list(self._tensors)

    def get_slice(self, name: str) -> _GgufSlice:
        tensor = self._tensors[name]
        plain = {"F32": "F32", "F16": "F16"}.get(tensor.tensor_type.name, "BF16")
        # GGUF counts dimensions from the innermost.
        return _GgufSlice(tuple(int(side) for side in reversed(tensor.shape)), plain)

    def get_tensor(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        view = self.get_slice(name)
        dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[view.get_dtype()]
        try:
            values = self._dequantize(tensor.data, tensor.tensor_type)
            return torch.from_numpy(values.copy()).reshape(view.get_shape()).to(dtype)
        except Exception as error:
            reason = reason_of(error)[:120]
            raise CheckpointError(f"{self._path}: the tensor {name} cannot be read ({reason})") from None


class _GgufSlice:
    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self._shape, self._dtype = shape, dtype

    def get_shape(self) -> tuple[int, ...]:
        return self._shape

    def get_dtype(self) -> str:
        return self._dtype


def _what_to_do(kind: str) -> str:
    if "GGUF" in kind:
        return ": give it the ending .gguf"
    if "pickle" in kind or "ZIP" in kind:
        return ": convert it to .safetensors first"
    return ""
