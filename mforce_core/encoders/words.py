"""Frozen word-level text features of the small built-in model.

Each word of a closed vocabulary has one fixed random vector; word order reaches the model through the position ids of
the text tokens. The full-size models take Qwen3's hidden states instead.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..weights.bundle import WORDS_PREFIX
from ..weights.tensor_files import CheckpointError, open_safetensors

#: The file of these features in the folder of a small model.
WORDS_FILE = "text_encoder.safetensors"

#: Tokens of an encoding at most.
_LONGEST = 4096

# Rows of the table before the vocabulary's.
_PADDING, _UNKNOWN, _SPECIAL = 0, 1, 2


class WordTextEncoder:
    """Maps prompts to (B, length, D) features.

    Args:
        vocabulary: lower-case words.
        table: (2 + len(vocabulary), D) float32: padding, unknown word, then one row per word.
        length: tokens of every encoding; longer prompts are cut, shorter ones padded.
    """

    def __init__(self, vocabulary: Sequence[str], table: Tensor, length: int) -> None:
        if table.ndim != 2 or table.shape[0] != _SPECIAL + len(vocabulary):
            raise CheckpointError(
                f"the word table has shape {tuple(table.shape)}, its {len(vocabulary)} words need "
                f"{_SPECIAL + len(vocabulary)} rows"
            )
        self.vocabulary = tuple(vocabulary)
        self.table = table.float()
        self.length = length
        self._index = {word: _SPECIAL + i for i, word in enumerate(vocabulary)}

    @classmethod
    def random(cls, vocabulary: Sequence[str], dim: int, length: int, *, seed: int = 0) -> "WordTextEncoder":
        """A fresh table of unit-variance Gaussian vectors."""
        generator = torch.Generator().manual_seed(seed)
        return cls(vocabulary, torch.randn(_SPECIAL + len(vocabulary), dim, generator=generator), length)

    @property
    def dim(self) -> int:
        """Features of a word."""
        return self.table.shape[1]

    @staticmethod
    def words(prompt: str) -> list[str]:
        """Lower-case words of a prompt; punctuation separates and is dropped."""
        return re.findall(r"[a-z]+", prompt.lower())

    def unknown_words(self, prompt: str) -> list[str]:
        """Words outside the vocabulary, in order, each once; they all share one vector."""
        return list(dict.fromkeys(word for word in self.words(prompt) if word not in self._index))

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token indices, (B, length) int64; the empty string is all padding."""
        ids = torch.full((len(prompts), self.length), _PADDING)
        for row, prompt in enumerate(prompts):
            found = [self._index.get(word, _UNKNOWN) for word in self.words(prompt)][: self.length]
            ids[row, : len(found)] = torch.tensor(found, dtype=torch.int64)
        return ids

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Features (B, length, D) float32; ``encode([""])`` is the null text of classifier-free guidance."""
        return self.table[self.tokenize(prompts)]

    def save(self, path: str | Path) -> None:
        """Write a safetensors file that `load_text_encoder` opens."""
        save_file({"word_embedding.weight": self.table.contiguous()}, path, metadata=self.metadata())

    def metadata(self) -> dict[str, str]:
        """What a file says beside the table."""
        return {"vocabulary": json.dumps(self.vocabulary), "length": str(self.length)}


def load_text_encoder(path: str | Path) -> WordTextEncoder:
    """Open a word-level text encoder: its file, a folder with ``text_encoder.safetensors``, or a one-file checkpoint.

    Raises:
        CheckpointError: no such file, or not a word-level text encoder.
    """
    path = Path(path)
    file = path / WORDS_FILE if path.is_dir() else path
    with open_safetensors(file) as handle:
        metadata = handle.metadata() or {}
        name = "word_embedding.weight"
        if WORDS_PREFIX + name in handle.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
            name = WORDS_PREFIX + name  # in a one-file checkpoint
        if "vocabulary" not in metadata or name not in handle.keys():  # noqa: SIM118
            raise CheckpointError(f"{file} is not a word-level text encoder of this project")
        table = handle.get_tensor(name)
    try:
        vocabulary, length = json.loads(metadata["vocabulary"]), int(metadata["length"])
    except (ValueError, KeyError, RecursionError):
        raise CheckpointError(f"{file} does not say which words it knows and how long its encodings are") from None
    if not isinstance(vocabulary, list) or not all(isinstance(word, str) for word in vocabulary):
        raise CheckpointError(f"{file} has a vocabulary that is not a list of words")
    if not 0 < length <= _LONGEST or not table.is_floating_point():
        raise CheckpointError(f"{file} has encodings of {length} tokens of {table.dtype}: at most {_LONGEST} floats")
    return WordTextEncoder(vocabulary, table, length)
