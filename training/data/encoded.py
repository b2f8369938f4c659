"""Batches from encoded shards, which need not fit in memory."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ...mforce_core.encoders.text import open_text_encoder
from ...mforce_core.encoders.words import WordTextEncoder
from ..batches import EncodedBatch
from .encode import NULL_TEXT_FILE
from .encoders import text_mark
from .order import batch_indices

#: Shards that are open at a time. Their tensors are mapped: memory holds what was read lately, as far as there is room.
_OPEN_SHARDS = 128


class Layout(NamedTuple):
    """What the samples of a shard look like; ``text`` is "features", "token_ids" or, captions alone, "captions"."""

    latent_shape: tuple[int, int, int]
    depth_shape: tuple[int, int] | None
    text: str
    text_encoder: str | None

    def __str__(self) -> str:
        channels, height, width = self.latent_shape
        depth = "no depth" if self.depth_shape is None else "depth of {}x{}".format(*self.depth_shape)
        return f"latents of {height}x{width} with {channels} channels, {depth}, text as {self.text}"


class _OpenShard:
    """A shard's mapped tensors, read row by row."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="pt")
        except (SafetensorError, FileNotFoundError) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it and encode again.") from None
        self.path = path
        self.metadata = self._file.metadata() or {}
        self._parts = {name: self._file.get_slice(name) for name in self._file.keys()}  # noqa: SIM118 - not a mapping
        if "rgb" not in self._parts:
            raise ValueError(f"{path} has no tensor named rgb, so it does not hold encoded samples.")

    @property
    def rows(self) -> int:
        return self._parts["rgb"].get_shape()[0]

    @property
    def layout(self) -> Layout:
        shapes = {name: part.get_shape()[1:] for name, part in self._parts.items()}
        channels, height, width = shapes["rgb"]
        depth = tuple(shapes["depth"]) if "depth" in shapes else None
        text = "features" if "text" in shapes else "token_ids" if "token_ids" in shapes else "captions"
        encoder = json.loads(self.metadata.get("facts", "{}")).get("text_encoder")
        return Layout((channels, height, width), depth, text, encoder)

    @property
    def captions(self) -> list[str]:
        if "captions" not in self.metadata:
            raise ValueError(f"{self.path} has no captions: encode again.")
        return json.loads(self.metadata["captions"])

    def value(self, name: str, row: int) -> Tensor:
        return self._parts[name][row : row + 1][0]

    def depth(self, row: int) -> Tensor:
        """(H, W) float32 in the unit of the data, 0 where not measured."""
        depth = self.value("depth", row).float()
        return depth * self.value("depth_scale", row) if "depth_scale" in self._parts else depth


class EncodedSource:
    """Random access to the shards of a folder by (seed, step, row); see :class:`..batches.Source`.

    Shards are those of :mod:`.encode`.

    Args:
        folder: with ``latents-*.safetensors``.
        text_encoder: file or folder. Where the shards hold features it is not needed; where they hold captions alone
            it encodes them as they come.
        batch_size: rows of a global batch.
        seed: of the order of samples.

    Raises:
        ValueError: no samples, shards that do not go together, a text encoder that they were not made with.
    """

    def __init__(self, folder: Path, text_encoder: Path | None, *, batch_size: int, seed: int) -> None:
        self.batch_size, self.seed = batch_size, seed
        self._paths: list[Path] = []
        self._ends: list[int] = []  # index after the last sample of each shard
        layout: Layout | None = None
        for path in sorted(folder.glob("latents-*.safetensors")):
            shard = _OpenShard(path)
            if not shard.rows:
                continue
            layout = layout or shard.layout
            if shard.layout != layout:
                raise ValueError(
                    f"{self._paths[0]} holds {layout} and {path} {shard.layout}: encode them at one size, in one "
                    "way and with one text encoder."
                )
            self._paths.append(path)
            self._ends.append(shard.rows + (self._ends[-1] if self._ends else 0))
        if layout is None:
            raise ValueError(f"{folder} holds no encoded samples: run mforce data encode first.")
        self.latent_shape, self._has_depth = layout.latent_shape, layout.depth_shape is not None
        self._text, self.null_text = _text_reader(folder, layout, text_encoder)
        self._open = lru_cache(maxsize=_OPEN_SHARDS)(_OpenShard)

    def __len__(self) -> int:
        return self._ends[-1]

    def batch(self, step: int, rows: slice) -> EncodedBatch:
        wanted = batch_indices(len(self), step, self.batch_size, self.seed)[rows].tolist()
        found: dict[int, tuple[Tensor, Tensor | None, Tensor]] = {}
        for index in sorted(set(wanted)):  # shard by shard
            number = bisect_right(self._ends, index)
            row = index - (self._ends[number - 1] if number else 0)
            shard = self._open(self._paths[number])
            depth = shard.depth(row) if self._has_depth else None
            found[index] = shard.value("rgb", row).float(), depth, self._text(shard, row)
        samples = [found[index] for index in wanted]
        maps = [depth for _, depth, _ in samples if depth is not None]
        return EncodedBatch(
            torch.stack([rgb for rgb, _, _ in samples]),
            torch.stack(maps) if maps else None,
            torch.stack([text for _, _, text in samples]),
        )


def _text_reader(
    folder: Path, layout: Layout, text_encoder: Path | None
) -> tuple[Callable[[_OpenShard, int], Tensor], Tensor]:
    """How a row's features (T, D) are got, and those of the empty caption."""
    if layout.text == "features":
        file = folder / NULL_TEXT_FILE
        if not file.is_file():
            raise ValueError(f"{file} is missing: run mforce data encode again, which writes it.")
        null_text = load_file(file)["text"].float()
        return lambda shard, row: shard.value("text", int(shard.value("text_row", row))).float(), null_text
    if text_encoder is None:
        raise ValueError(f"{folder} holds captions without their features: name the text encoder.")
    if layout.text_encoder is not None and layout.text_encoder != text_mark(text_encoder):
        raise ValueError(f"{folder} was encoded with another text encoder than {text_encoder}.")
    encoder = open_text_encoder(text_encoder)
    null_text = encoder.encode([""])[0]
    if layout.text == "token_ids" and isinstance(encoder, WordTextEncoder):
        table = encoder.table
        return lambda shard, row: table[shard.value("token_ids", row).long()], null_text
    captions = lru_cache(maxsize=_OPEN_SHARDS)(lambda path: _OpenShard(path).captions)
    return lambda shard, row: encoder.encode([captions(shard.path)[row]])[0], null_text
