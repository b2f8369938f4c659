"""The other parts that a one-file checkpoint may hold: an autoencoder and text encoders, under their own prefixes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from .tensor_files import open_safetensors

#: Prefixes of an autoencoder, ours first.
VAE_PREFIXES = ("vae.", "first_stage_model.")
#: Prefix of text encoders; the name of one follows.
TEXT_PREFIX = "text_encoders."
#: The word-level text encoder of small models; its words are in the file's metadata.
WORDS_PREFIX = TEXT_PREFIX + "words."


def vae_prefix(names: Iterable[str]) -> str | None:
    """The prefix of the autoencoder among the names of a file's tensors, if there is one."""
    return next((prefix for prefix in VAE_PREFIXES if any(name.startswith(prefix) for name in names)), None)


def has_words(names: Iterable[str]) -> bool:
    """Whether a word-level text encoder is among the tensors."""
    return any(name.startswith(WORDS_PREFIX) for name in names)


def read_parts(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, by their names after it."""
    with open_safetensors(path) as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a mapping
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


def text_encoders(path: Path) -> list[dict[str, Tensor]]:
    """The tensors of every text encoder in a file, by the names that they have in a file of their own."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read_parts(path, TEXT_PREFIX).items():
        encoder, _, rest = name.partition(".")
        found.setdefault(encoder, {})[rest.removeprefix("transformer.")] = tensor
    return list(found.values())
