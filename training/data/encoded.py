"""Batches from encoded shards, which need not fit in memory."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate, combinations
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
from .order import Order, Pick
from .sample import turn

#: Shards that are open at a time. Their tensors are mapped: memory holds what was read lately, as far as there is room.
_OPEN_SHARDS = 128


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
        if not _one_autoencoder(self, other):
            return False
        alike = self._replace(autoencoder=other.autoencoder)
        if self.aspects is None or other.aspects is None:
            return alike == other
        return alike._replace(latent_shape=other.latent_shape, depth_shape=other.depth_shape) == other

    def __str__(self) -> str:
        channels, height, width = self.latent_shape
        depth = "no depth" if self.depth_shape is None else "depth of {}x{}".format(*self.depth_shape)
        return f"latents of {height}x{width} with {channels} channels, {depth}, text as {self.text}"


def _one_autoencoder(one: Layout, other: Layout) -> bool:
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


class EncodedSource:
    """Batches from one folder of encoded shards or a mixture of several; see :class:`..batches.Source`.

    A batch has latents of one shape. Where a folder of a mixture has no depth, and another one has, its maps are empty.

    Args:
        folders: each with ``latents-*.safetensors`` that :mod:`.encode` wrote.
        text_encoder: file or folder. Where the shards hold features it is not needed; where they hold captions alone
            it encodes them as they come.
        batch_size: rows of a global batch.
        seed: of the order of samples, and of the caption of several with which a sample begins.
        weights: of the folders, of which the rows of a batch are drawn; all the same by default.

    Attributes:
        shapes: of the latents, the most frequent first; ``order`` numbers folders and shapes as they stand here.
        depth_scale: pixels of depth per latent, 0 where no folder has depth.

    Raises:
        ValueError: folders that cannot be used, or not together.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        text_encoder: Path | None,
        *,
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.folders = [EncodedFolder(folder, text_encoder) for folder in folders]
        first = self.folders[0]
        for one, folder in combinations(self.folders, 2):
            _check_together(one, folder)
        counts: Counter[tuple[int, int, int]] = Counter()
        for folder in self.folders:
            counts.update({shape: folder.count(shape) for shape in folder.shapes})
        self.shapes = [shape for shape, _ in counts.most_common()]
        self.depth_scale = max(folder.layout.depth_scale or 0 for folder in self.folders)
        self._length = counts.total()
        table = [[folder.count(shape) for shape in self.shapes] for folder in self.folders]
        self.seed = seed
        self.order = Order(table, weights or [1.0] * len(folders), batch_size, seed)
        self.latent_shape, self.null_text = self.shapes[0], first.null_text

    def __len__(self) -> int:
        return self._length

    def batch(self, step: int, rows: slice) -> EncodedBatch:
        wanted = self.order.picks(step)[rows]
        found = {pick: self._sample(pick) for pick in sorted(set(wanted))}  # shard by shard
        samples = [found[pick] for pick in wanted]
        maps = [depth for _, depth, _ in samples if depth is not None]
        return EncodedBatch(
            torch.stack([rgb for rgb, _, _ in samples]),
            torch.stack(maps) if maps else None,
            torch.stack([text for _, _, text in samples]),
        )

    def _sample(self, pick: Pick) -> tuple[Tensor, Tensor | None, Tensor]:
        rgb, depth, text = self.folders[pick.part].sample(self.shapes[pick.shape], pick.sample, pick.epoch, self.seed)
        if depth is None and self.depth_scale:
            depth = torch.zeros(rgb.shape[1] * self.depth_scale, rgb.shape[2] * self.depth_scale)
        return rgb, depth, text


def _check_together(one: EncodedFolder, other: EncodedFolder) -> None:
    """Raises ValueError where two folders cannot be parts of one mixture."""
    encoders = one.layout.text_encoder, other.layout.text_encoder
    if one.null_text.shape != other.null_text.shape or (None not in encoders and encoders[0] != encoders[1]):
        raise ValueError(f"{one.path} and {other.path} were encoded with different text encoders.")
    scales = {one.layout.depth_scale, other.layout.depth_scale} - {None}
    if not _one_autoencoder(one.layout, other.layout) or len(scales) > 1:
        raise ValueError(f"{one.path} and {other.path} were encoded with different autoencoders.")


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
        return encoder.encode(list(numbers)), torch.tensor([numbers[caption] for caption in shard.captions])

    return _TextReader(lambda shard, number: encoder.encode([captions(shard.path)[number]])[0], every, empty)
