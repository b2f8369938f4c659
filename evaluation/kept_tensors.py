"""A file of what a model made for a study, which takes long and is made once."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ..mforce_core.weights.tensor_files import open_safetensors
from ..mforce_core.whole_file import whole_file


class KeptTensors:
    """The tensors of a .safetensors file that says what they were made of.

    Args:
        file: None keeps nothing.
        made_of: model, settings and inputs, as JSON can write them.
        others: what the file holds where these differ, for the error.
    """

    def __init__(self, file: Path | None, made_of: Sequence[Any], others: str) -> None:
        self.file, self.others = file, others
        self.digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

    def read(self) -> dict[str, Tensor] | None:
        """Tensors by name; None where there is no file yet.

        Raises:
            ValueError: they were made of something else, or the file is of another kind.
        """
        if self.file is None or not self.file.exists():
            return None
        with open_safetensors(self.file) as stored:
            made_of = (stored.metadata() or {}).get("made_of")
            if made_of is None:
                raise ValueError(f"{self.file} is a file of another kind, which is not written over: name another.")
            if made_of != self.digest:
                raise ValueError(f"{self.file} holds {self.others}: name another file, or remove this one.")
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the file, whole or not at all."""
        if self.file is None:
            return
        with whole_file(self.file) as partial:
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, partial, metadata={"made_of": self.digest})
