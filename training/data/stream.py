"""Batches straight from shards of files, for data that is seen once and not worth encoding first.

Records are read in windows, and a window is shuffled as a whole. Where a run is in its data is then five numbers, and
resuming reads one window again, not everything before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...mforce_core import load_autoencoder
from ...mforce_core.encoders.text import open_text_encoder
from ..batches import EncodedBatch
from .encode import EncodeSettings, view_sample
from .sample import Broken
from .shards import MissingShardError, Record, Shard


class _Place(NamedTuple):
    """Where a window begins, as position in the epoch's order of shards and record in the shard; ``drawn`` records of
    it have been used."""

    epoch: int = 0
    shard: int = 0
    record: int = 0
    drawn: int = 0


class _Drawn(NamedTuple):
    """A record, where it comes from and the place after it."""

    record: Record
    location: str
    after: _Place


class StreamSource:
    """Sequential batches of shards, encoded as they come; see :class:`..batches.Source`.

    Every rank reads all records and decodes and encodes its own rows, so any number of ranks sees the same batches.
    Steps in order are read once; any other step is found by reading again from the beginning or, after
    `load_state_dict`, from there. A sample that cannot be used is replaced by the next one of its batch and is listed
    in ``broken``, by shard and key.

    Args:
        shards: from :func:`.shards.find_shards`; their order is drawn anew every epoch.
        settings: the encoders and the view of a picture. With several views, epochs take one after the other.
        batch_size: rows of a global batch.
        seed: of the order.
        window: records that are shuffled together, and held in memory as they lie on disk.

    Raises:
        ValueError: no text encoder; encoders that cannot be opened.
    """

    def __init__(
        self, shards: list[Shard], settings: EncodeSettings, *, batch_size: int, seed: int, window: int = 1024
    ) -> None:
        if settings.text_encoder is None:
            raise ValueError("Streaming encodes captions as they come: name the text encoder.")
        self.shards, self.settings = shards, settings
        self.batch_size, self.seed, self.window = batch_size, seed, window
        self.autoencoder = load_autoencoder(settings.vae, device=settings.device)
        self.text_encoder = open_text_encoder(Path(settings.text_encoder), settings.device)
        self.null_text = self._features([""])[0]
        factor = self.autoencoder.spatial_factor
        height, width = settings.canvas
        self.latent_shape = (self.autoencoder.latent_channels, height // factor, width // factor)
        self.broken: dict[tuple[str, str], str] = {}
        self._step: int
        self._held: list[_Drawn]
        self._start: _Place
        self._records: Iterator[_Drawn]
        self._rewind()

    @cached_property
    def _count(self) -> int:
        return sum(not isinstance(item, Broken) for shard in self.shards for item, _ in self._read(shard))

    def __len__(self) -> int:
        """Counted by reading all shards once."""
        return self._count

    def batch(self, step: int, rows: slice) -> EncodedBatch:
        if step < self._step or (step == self._step and not self._held):
            self._rewind()
        while self._step < step:
            self._held = list(islice(self._records, self.batch_size))
            self._step += 1
        return self._encode(list(range(self.batch_size))[rows])

    def state_dict(self) -> dict[str, list[int]]:
        """The place after the last batch."""
        after = self._held[-1].after if self._held else self._start
        return {"place": [self._step, *after]}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Continue after the batch at which the state was taken."""
        self._step, self._held, self._start = state["place"][0], [], _Place(*state["place"][1:])
        self._records = self._draw(self._start)

    def _rewind(self) -> None:
        self.load_state_dict({"place": [-1, *_Place()]})

    def _encode(self, rows: list[int]) -> EncodedBatch:
        images, depths, captions = [], [], []
        for row in rows:
            image, depth, caption = self._sample(row)
            images.append(image)
            captions.append(caption)
            if depth is not None:
                depths.append(depth.nan_to_num(0.0))
        pixels = torch.stack(images).to(self.settings.device).float() / 127.5 - 1
        with torch.no_grad():
            latents = self.autoencoder.encode(pixels).float().cpu()
        return EncodedBatch(latents, torch.stack(depths) if depths else None, self._features(captions))

    def _features(self, captions: list[str]) -> Tensor:
        return self.text_encoder.encode(captions).float().cpu()

    def _sample(self, row: int) -> tuple[Tensor, Tensor | None, str]:
        """The sample of a row, or the first usable one after it."""
        for offset in range(self.batch_size):
            record, location, after = self._held[(row + offset) % self.batch_size]
            try:
                sample = record.decode()
                image, depth = view_sample(sample, self.settings, after.epoch % self.settings.views)
            except ValueError as error:
                self.broken[location, record.key] = str(error)
                continue
            return image, depth, sample.caption_of(after.epoch, self.seed)
        (location, key), reason = next(reversed(self.broken.items()))
        raise ValueError(f"A whole batch cannot be used; the last sample of it: {location}, {key}: {reason}.")

    def _draw(self, start: _Place) -> Iterator[_Drawn]:
        """Records in the order of use."""
        for begin, window, after in self._windows(start):
            digest = hashlib.sha256(f"{self.seed}/{tuple(begin)}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            order = torch.randperm(len(window), generator=generator).tolist()
            drawn = start.drawn if begin == start._replace(drawn=0) else 0
            for used, index in enumerate(order[drawn:], drawn + 1):
                place = begin._replace(drawn=used) if used < len(order) else after
                record, location = window[index]
                yield _Drawn(record, location, place)

    def _windows(self, start: _Place) -> Iterator[tuple[_Place, list[tuple[Record, str]], _Place]]:
        """Windows with the places where they begin and where the next one does."""
        begin = start._replace(drawn=0)
        while True:
            order = torch.randperm(
                len(self.shards), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + begin.epoch)
            ).tolist()
            epoch, first, skipped = begin.epoch, begin.shard, begin.record
            window: list[tuple[Record, str]] = []
            empty = begin == _Place(epoch)
            for position in range(first, len(order)):
                shard = self.shards[order[position]]
                for item, number in self._read(shard):
                    if isinstance(item, Broken) or (position == first and number < skipped):
                        continue
                    window.append((item, shard.location))
                    empty = False
                    if len(window) == self.window:
                        after = _Place(epoch, position, number + 1)
                        yield begin, window, after
                        begin, window = after, []
            if empty:
                raise ValueError("The shards hold no sample at all: look at them with mforce data check.")
            if window:
                yield begin, window, _Place(epoch + 1)
            begin = _Place(epoch + 1)

    def _read(self, shard: Shard) -> Iterator[tuple[Record | Broken, int]]:
        """What a shard holds, numbered; what is damaged is listed."""
        try:
            for number, item in enumerate(shard.records()):
                if isinstance(item, Broken):
                    self.broken[item.shard, item.key] = item.reason
                yield item, number
        except MissingShardError as error:
            self.broken[shard.location, ""] = str(error)
