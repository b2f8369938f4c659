"""A folder of encoded shards: what its samples look like, and the reading of one of them or of all."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ...mforce_core.encoders.text import open_text_encoder
from ...mforce_core.encoders.words import WordTextEncoder
from .encode import NULL_TEXT_FILE
from .encoders import text_mark
from .sample import turn

#: Shards that are open at a time. Their tensors are mapped: memory holds what was read lately, as far as there is room.
_OPEN_SHARDS = 128

#: Captions that are encoded together.
_TOGETHER = 64


class Layout(NamedTuple):
    """What the samples of a shard look like; ``text`` is "features", "token_ids" or, captions alone, "captions".

    ``autoencoder``, ``text_encoder``: their marks, None where they were not noted. ``aspects``: where pictures went to
    canvases of several shapes, each with shards of its own, the longer side of all of these in pixels, else None.
    """

    latent_shape: tuple[int, int, int]
    depth_shape: tuple[int, int] | None
    text: str
    autoencoder: str | None
    text_encoder: str | None
    aspects: int | None

    @property
    def depth_scale(self) -> int | None:
        """Pixels of depth per latent, None without depth."""
        return None if self.depth_shape is None else self.depth_shape[0] // self.latent_shape[1]

    def fits(self, other: Layout) -> bool:
        """Whether both may lie in one folder: all the same, but for the shape of pictures in buckets."""
        if not one_autoencoder(self, other):
            return False
        alike = self._replace(autoencoder=other.autoencoder)
        if self.aspects is None or other.aspects is None:
            return alike == other
        return alike._replace(latent_shape=other.latent_shape, depth_shape=other.depth_shape) == other

    def __str__(self) -> str:
        channels, height, width = self.latent_shape
        depth = "no depth" if self.depth_shape is None else "depth of {}x{}".format(*self.depth_shape)
        return f"latents of {height}x{width} with {channels} channels, {depth}, text as {self.text}"


def one_autoencoder(one: Layout, other: Layout) -> bool:
    """Whether both may be of one autoencoder; earlier versions did not note it."""
    marks = one.autoencoder, other.autoencoder
    return one.latent_shape[0] == other.latent_shape[0] and (None in marks or marks[0] == marks[1])


class OpenShard:
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
        facts = json.loads(self.metadata.get("facts", "{}"))
        aspects = max(facts.get("canvas", (0,))) if facts.get("aspects") else None
        return Layout((channels, height, width), depth, text, facts.get("vae"), facts.get("text_encoder"), aspects)

    @property
    def captions(self) -> list[str]:
        if "captions" not in self.metadata:
            raise ValueError(f"{self.path} has no captions: encode again.")
        return json.loads(self.metadata["captions"])

    def value(self, name: str, row: int) -> Tensor:
        return self._parts[name][row : row + 1][0]

    def whole(self, name: str) -> Tensor:
        """A tensor of all samples or captions."""
        return self._parts[name][:]

    def bytes_of(self, name: str, dtype: torch.dtype | None = None) -> int:
        """Of a tensor of all samples or captions, as it is stored or in a dtype; 0 where there is none."""
        if name not in self._parts:
            return 0
        part = self._parts[name]
        return prod(part.get_shape()) * (part[:0].dtype if dtype is None else dtype).itemsize

    @property
    def one_caption_each(self) -> bool:
        """Whether the captions are numbered as the samples."""
        return "caption_end" not in self._parts or torch.equal(
            self.whole("caption_end"), torch.arange(1, self.rows + 1, dtype=torch.int32)
        )

    def caption(self, row: int, epoch: int, seed: int) -> int:
        """Which of the shard's captions a row has in an epoch."""
        if "caption_end" not in self._parts:
            return row
        end = int(self.value("caption_end", row))
        first = int(self.value("caption_end", row - 1)) if row else 0
        return first + turn(end - first, epoch, seed, f"{self.path.stem}/{row}")

    def depth(self, row: int) -> Tensor:
        """(H, W) float32 in the unit of the data, 0 where not measured."""
        depth = self.value("depth", row).float()
        return depth * self.value("depth_scale", row) if "depth_scale" in self._parts else depth

    @property
    def depth_scales(self) -> Tensor:
        """(n,) float32, by which stored depth is multiplied."""
        return self.whole("depth_scale") if "depth_scale" in self._parts else torch.ones(self.rows)


class EncodedFolder:
    """Random access to the samples of a folder, by the shape of their latents.

    Attributes:
        shapes: (C, h, w) of the latents, the most frequent first; one, unless the folder was encoded in buckets.
        has_depth: whether samples have depth.
        null_text: (T, D) features of the empty caption.

    Raises:
        ValueError: no samples, shards that do not go together, a text encoder that they were not made with.
    """

    def __init__(self, folder: Path, text_encoder: Path | None) -> None:
        files: dict[tuple[int, int, int], list[tuple[Path, int]]] = {}
        layout, first = None, folder
        for path in sorted(folder.glob("latents-*.safetensors")):
            shard = OpenShard(path)
            if not shard.rows:
                continue
            if layout is None:
                layout, first = shard.layout, path
            if not shard.layout.fits(layout):
                raise ValueError(
                    f"{first} holds {layout} and {path} {shard.layout}: encode them at one size, in one "
                    "way, with one autoencoder and one text encoder."
                )
            files.setdefault(shard.layout.latent_shape, []).append((path, shard.rows))
        if layout is None:
            raise ValueError(f"{folder} holds no encoded samples: run mforce data encode first.")
        self.path, self.layout, self.has_depth = folder, layout, layout.depth_shape is not None
        self.shapes = sorted(files, key=lambda shape: -sum(rows for _, rows in files[shape]))
        self._paths = {shape: [path for path, _ in found] for shape, found in files.items()}
        # Index after the last sample of each shard.
        self._ends = {shape: list(accumulate(rows for _, rows in found)) for shape, found in files.items()}
        self._text = _text_reader(folder, layout, text_encoder)
        self.null_text = self._text.empty
        self._open = lru_cache(maxsize=_OPEN_SHARDS)(OpenShard)

    def count(self, shape: tuple[int, int, int]) -> int:
        """Samples with latents of this shape."""
        return self._ends[shape][-1] if shape in self._ends else 0

    def shards(self, shape: tuple[int, int, int]) -> list[OpenShard]:
        """Those with latents of this shape, in the order of `sample`'s indices."""
        return [OpenShard(path) for path in self._paths.get(shape, [])]

    def texts(self, shard: OpenShard) -> tuple[Tensor, Tensor]:
        """A table of features and, by caption of a shard, what of it: ``table[indices]`` is (captions, T, D)."""
        return self._text.all(shard)

    def sample(
        self, shape: tuple[int, int, int], index: int, epoch: int, seed: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Latents (C, h, w), depth (H, W) or None, and text (T, D) of one of them, of several captions the epoch's."""
        ends = self._ends[shape]
        number = bisect_right(ends, index)
        row = index - (ends[number - 1] if number else 0)
        shard = self._open(self._paths[shape][number])
        depth = shard.depth(row) if self.has_depth else None
        return shard.value("rgb", row).float(), depth, self._text.one(shard, shard.caption(row, epoch, seed))


class _TextReader(NamedTuple):
    """How features of captions are got, and those of the empty caption (T, D).

    ``one`` takes a shard and the number of a caption in it and gives (T, D). ``all`` gives a shard's table and the
    indices ``i`` into it, by caption: ``table[i]`` is (captions, T, D).
    """

    one: Callable[[OpenShard, int], Tensor]
    all: Callable[[OpenShard], tuple[Tensor, Tensor]]
    empty: Tensor


def _text_reader(folder: Path, layout: Layout, text_encoder: Path | None) -> _TextReader:
    if layout.text == "features":
        file = folder / NULL_TEXT_FILE
        if not file.is_file():
            raise ValueError(f"{file} is missing: run mforce data encode again, which writes it.")
        return _TextReader(
            lambda shard, number: shard.value("text", int(shard.value("text_row", number))).float(),
            lambda shard: (shard.whole("text"), shard.whole("text_row").long()),
            load_file(file)["text"].float(),
        )
    if text_encoder is None:
        raise ValueError(f"{folder} holds captions without their features: name the text encoder.")
    if layout.text_encoder is not None and layout.text_encoder != text_mark(text_encoder):
        raise ValueError(f"{folder} was encoded with another text encoder than {text_encoder}.")
    encoder = open_text_encoder(text_encoder)
    empty = encoder.encode([""])[0]
    if layout.text == "token_ids" and isinstance(encoder, WordTextEncoder):
        words = encoder.table
        return _TextReader(
            lambda shard, number: words[shard.value("token_ids", number).long()],
            lambda shard: (words, shard.whole("token_ids").long()),
            empty,
        )
    captions = lru_cache(maxsize=_OPEN_SHARDS)(lambda path: OpenShard(path).captions)

    def every(shard: OpenShard) -> tuple[Tensor, Tensor]:
        numbers = {caption: number for number, caption in enumerate(dict.fromkeys(shard.captions))}
        # A few at a time: features of Qwen3 are large while they are made.
        different = list(numbers)
        parts = [different[first : first + _TOGETHER] for first in range(0, len(different), _TOGETHER)]
        table = torch.cat([encoder.encode(part) for part in parts])
        return table, torch.tensor([numbers[caption] for caption in shard.captions])

    return _TextReader(lambda shard, number: encoder.encode([captions(shard.path)[number]])[0], every, empty)
