"""Batches straight from shards of files, for data that is seen once and not worth encoding first.

Where a run is in its data is its step and four numbers for each data set; see :mod:`.windows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...mforce_core import load_autoencoder
from ...mforce_core.encoders.text import open_text_encoder
from ..batches import EncodedBatch
from .encode import EncodeSettings, view_sample
from .order import distribution
from .shards import Shard
from .windows import Drawn, Place, Windows


class StreamSource:
    """Sequential batches of one data set or a mixture of several, encoded as they come; see :class:`..batches.Source`.

    Every rank reads all records and decodes and encodes its own rows, so any number of ranks sees the same batches.
    Steps in order are read once; any other step is found by reading again from the beginning or, after
    `load_state_dict`, from there. A sample that cannot be used is replaced by the next one of its batch and is listed
    in ``broken``, by shard and key.

    Args:
        parts: the shards of every data set, from :func:`.shards.find_shards`.
        settings: the encoders and the view of a picture. With several views, epochs take one after the other.
        batch_size: rows of a global batch.
        seed: of the order.
        weights: of the parts, among which the rows of a batch are shared; all the same by default. A share is never off
            by more than one row.
        window: records of a part that are shuffled together, and held in memory as they lie on disk.

    Raises:
        ValueError: no text encoder; encoders that cannot be opened.
    """

    def __init__(
        self,
        parts: Sequence[list[Shard]],
        settings: EncodeSettings,
        *,
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None = None,
        window: int = 1024,
    ) -> None:
        if settings.text_encoder is None:
            raise ValueError("Streaming encodes captions as they come: name the text encoder.")
        self.settings, self.batch_size, self.seed = settings, batch_size, seed
        self.autoencoder = load_autoencoder(settings.vae, device=settings.device)
        self.text_encoder = open_text_encoder(Path(settings.text_encoder), settings.device)
        self.null_text = self._features([""])[0]
        factor = self.autoencoder.spatial_factor
        height, width = settings.canvas
        self.latent_shape = (self.autoencoder.latent_channels, height // factor, width // factor)
        self.broken: dict[tuple[str, str], str] = {}
        self._parts = [
            Windows(shards, _seed_of_part(seed, part), window, self.broken) for part, shards in enumerate(parts)
        ]
        self._ends = distribution(torch.tensor([1.0] * len(parts) if weights is None else list(weights)).double())
        self._step: int
        self._held: list[Drawn]
        self._places: list[Place]
        self._records: list[Iterator[Drawn]]
        self._rewind()

    @cached_property
    def _count(self) -> int:
        return sum(part.count() for part in self._parts)

    def __len__(self) -> int:
        """Counted by reading all shards once."""
        return self._count

    def batch(self, step: int, rows: slice) -> EncodedBatch:
        if step < self._step or (step == self._step and not self._held):
            self._rewind()
        while self._step < step:
            self._held = self._drawn(self._step + 1)
            self._step += 1
        return self._encode(list(range(self.batch_size))[rows])

    def state_dict(self) -> dict[str, list[int]]:
        """The step, and the place in every part after it."""
        return {"place": [self._step, *(number for place in self._places for number in place)]}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Continue after the batch at which the state was taken.

        Raises:
            ValueError: it was taken of another number of parts.
        """
        self._step, *numbers = state["place"]
        self._held, size = [], len(Place._fields)
        self._places = [Place(*numbers[start : start + size]) for start in range(0, len(numbers), size)]
        if len(self._places) != len(self._parts):
            raise ValueError(f"The run read {len(self._places)} data sets, and this stream has {len(self._parts)}.")
        self._records = [part.draw(place) for part, place in zip(self._parts, self._places, strict=True)]

    def _rewind(self) -> None:
        self.load_state_dict({"place": [-1, *len(self._parts) * Place()]})

    def _drawn(self, step: int) -> list[Drawn]:
        """The next records of every part, as many as its share of this step, in mixed order."""
        state = np.random.SeedSequence((self.seed, step)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]) >> 1)
        # Systematic sampling: one draw shifts the borders between the parts.
        draw = torch.rand((), generator=generator, dtype=torch.float64)
        reached = (self._ends * self.batch_size - draw).ceil().clamp(0, self.batch_size).long()
        counts = reached.diff(prepend=torch.zeros(1, dtype=torch.int64)).tolist()
        held: list[Drawn] = []
        for part, count in enumerate(counts):
            new = list(islice(self._records[part], count))
            self._places[part] = new[-1].after if new else self._places[part]
            held += new
        if len(self._parts) == 1:
            return held
        return [held[row] for row in torch.randperm(len(held), generator=generator).tolist()]

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


def _seed_of_part(seed: int, part: int) -> int:
    """Parts have orders of their own; the first, or only one, has the run's."""
    return seed if part == 0 else int(np.random.SeedSequence((seed, part)).generate_state(1, np.uint32)[0])
