"""The other parts that a one-file checkpoint may hold: an autoencoder and text encoders, under prefixes of their own.

The names are those of ComfyUI's checkpoints: ``vae.`` and ``text_encoders.NAME.transformer.``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path

from torch import Tensor

from .safetensors_writer import DTYPES
from .tensor_files import open_tensors
from .weight_files import weight_files

#: Prefixes of an autoencoder, ours first.
VAE_PREFIXES = ("vae.", "first_stage_model.")
#: Prefix of text encoders; the name of one follows.
TEXT_PREFIX = "text_encoders."
#: The word-level text encoder of small models; its words are in the file's metadata.
WORDS = "words"
WORDS_PREFIX = f"{TEXT_PREFIX}{WORDS}."

# The second form, without a name, is that of a pipeline whose parts were saved into one file.
_TEXT = re.compile(r"text_encoders\.(?!model\.|layers\.)([^.]+)\.(?:transformer\.)?|text_encoders?\.(?:transformer\.)?")


@dataclass(frozen=True)
class PartSummary:
    """A part of a one-file checkpoint: "vae" or "text_encoder", its name, and what it takes."""

    part: str
    name: str
    tensors: int
    bytes: int
    dtypes: dict[str, int]


def vae_prefix(names: Iterable[str]) -> str | None:
    """The prefix of the autoencoder among the names of a file's tensors, if there is one."""
    names = list(names)
    return next((prefix for prefix in VAE_PREFIXES if any(name.startswith(prefix) for name in names)), None)


def has_words(names: Iterable[str]) -> bool:
    """Whether a word-level text encoder is among the tensors."""
    return any(name.startswith(WORDS_PREFIX) for name in names)


def text_encoder_names(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Of every text encoder among the tensors: stored names by the names that they have in a file of their own."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        if (match := _TEXT.match(name)) is not None:
            found.setdefault(match[1] or "text_encoder", {})[name[match.end() :]] = name
    return found


def locate(path: Path) -> dict[str, Path]:
    """The file of every tensor of a checkpoint, given as a file, one of its shards or a folder.

    Raises:
        CheckpointError: nothing there, or a shard is missing.
    """
    location: dict[str, Path] = {}
    for file in weight_files(path):
        with open_tensors(file) as handle:
            location |= dict.fromkeys(handle.keys(), file)
    return location


def file_with(path: Path, prefix: str) -> Path:
    """The file of a checkpoint, or one of its shards, that holds tensors under a prefix; there are some."""
    return next(file for name, file in locate(path).items() if name.startswith(prefix))


def read_named(location: Mapping[str, Path], stored: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors that ``stored`` names, by its keys, from where `locate` found them."""
    found: dict[str, Tensor] = {}
    for path in {location[name]: None for name in stored.values()}:
        with open_tensors(path) as file:
            found |= {own: file.get_tensor(name) for own, name in stored.items() if location[name] == path}
    return found


def read_parts(location: Mapping[str, Path], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, by their names after it."""
    return read_named(location, {name.removeprefix(prefix): name for name in location if name.startswith(prefix)})


def describe_parts(path: Path) -> list[PartSummary]:
    """The parts beside the transformer in a checkpoint; no weight is read."""
    location = locate(path)
    groups = [("text_encoder", name, list(own.values())) for name, own in text_encoder_names(location).items()]
    if (prefix := vae_prefix(location)) is not None:
        groups.append(("vae", prefix.rstrip("."), [name for name in location if name.startswith(prefix)]))
    found = []
    with ExitStack() as stack:
        files = {file: stack.enter_context(open_tensors(file)) for file in sorted(set(location.values()))}
        for part, name, stored in groups:
            views = [files[location[tensor]].get_slice(tensor) for tensor in stored]
            dtypes = Counter(view.get_dtype() for view in views)
            size = sum(prod(v.get_shape()) * DTYPES[v.get_dtype()].itemsize for v in views if v.get_dtype() in DTYPES)
            found.append(PartSummary(part, name, len(stored), size, dict(dtypes.most_common())))
    return found
