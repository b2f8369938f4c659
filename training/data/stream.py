"""Batches straight from shards of files, for data that is seen once and not worth encoding first.

Records are drawn in rounds, of as many as a batch has. With one canvas a round is a batch. With several, records wait
until there are enough for a batch of theirs: each is used once, and shapes come as often as the data has them. A round
is drawn only when no canvas has enough, so that no more than a round and ``canvases * (batch_size - 1)`` records wait.

Where a run is in its data is its step and four numbers for each data set (see :mod:`.windows`); with several canvases,
also the number of rounds and five numbers for each record that waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...mforce_core import load_autoencoder
from ...mforce_core.encoders.text import open_text_encoder
from ..batches import EncodedBatch
from .buckets import first_full
from .encode import EncodeSettings, view_sample
from .order import distribution
from .shards import Shard
from .windows import Drawn, Place, Windows


class StreamSource:
    """Sequential batches of one data set or a mixture of several, encoded as they come; see :class:`..batches.Source`.

    Every rank reads all records and decodes and encodes its own rows, so any number of ranks sees the same batches.
    Steps in order are read once; any other step is found by reading again from the beginning or, after
    `load_state_dict`, from there. A sample that cannot be used is replaced by the next one of its batch and is listed
    in ``broken``, by shard and key. All pictures of a batch are on one canvas (see :meth:`.EncodeSettings.canvases`).
    Where there are several, a batch of which nothing can be used is left out: a shape may have no other pictures.

    Args:
        parts: the shards of every data set, from :func:`.shards.find_shards`.
        settings: the encoders and the view of a picture. With several views, epochs take one after the other. With
            ``aspects`` every picture goes to the nearest of several canvases; ``latent_shape`` is the square one's.
        batch_size: rows of a global batch.
        seed: of the order.
        weights: of the parts, among which the records of a round are shared; all the same by default. A share is never
            off by more than one record.
        window: records of a part that are shuffled together, and held in memory as they lie on disk.

    Raises:
        ValueError: no text encoder; encoders that cannot be opened; a canvas off the autoencoder's grid.
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
        canvases = settings.canvases(factor)
        self._views = {canvas: replace(settings, canvas=canvas) for canvas in canvases}
        self.broken: dict[tuple[str, str], str] = {}
        self._parts = [
            Windows(
                shards,
                part=part,
                seed=_seed_of_part(seed, part),
                window=window,
                canvases=canvases,
                broken=self.broken,
            )
            for part, shards in enumerate(parts)
        ]
        self._ends = distribution(torch.tensor([1.0] * len(parts) if weights is None else list(weights)).double())
        self._step: int
        self._rounds: int
        self._held: list[Drawn]  # the batch of the step
        self._waiting: list[Drawn]  # for later ones, in the order in which they came
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
            self._held = self._next_batch()
            self._step += 1
        return self._encode(list(range(self.batch_size))[rows])

    def state_dict(self) -> dict[str, list[int]]:
        """The step and the place in every part after it; with several canvases also rounds and places of what waits."""
        state = {"place": [self._step, *(number for place in self._places for number in place)]}
        if len(self._views) > 1:
            waiting = (number for drawn in self._waiting for number in (drawn.part, *drawn.place))
            state["waiting"] = [self._rounds, *waiting]
        return state

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Continue after the batch at which the state was taken; what waits is read again.

        Raises:
            ValueError: it was taken of another number of parts, or of other shards.
        """
        self._step, *numbers = state["place"]
        self._held, size = [], len(Place._fields)
        self._places = [Place(*numbers[start : start + size]) for start in range(0, len(numbers), size)]
        if len(self._places) != len(self._parts):
            raise ValueError(f"The run read {len(self._places)} data sets, and this stream has {len(self._parts)}.")
        self._records = [part.draw(place) for part, place in zip(self._parts, self._places, strict=True)]
        self._rounds, *numbers = state.get("waiting", [self._step + 1])
        waiting = [(numbers[at], Place(*numbers[at + 1 : at + 1 + size])) for at in range(0, len(numbers), 1 + size)]
        found = [windows.find({place for part, place in waiting if part == windows.part}) for windows in self._parts]
        self._waiting = [found[part][place] for part, place in waiting]

    def _rewind(self) -> None:
        self.load_state_dict({"place": [-1, *len(self._parts) * Place()]})

    def _next_batch(self) -> list[Drawn]:
        """The next records of one canvas, of which something can be used."""
        before = self._places
        while True:
            batch = self._next_full()
            if len(self._views) == 1 or any(self._view(drawn) is not None for drawn in batch):
                return batch
            if all(now.epoch > then.epoch + 1 for now, then in zip(self._places, before, strict=True)):
                raise self._nothing_usable()

    def _next_full(self) -> list[Drawn]:
        """Draw until a canvas has enough for a batch, and take that."""
        while not (rows := first_full((drawn.canvas for drawn in self._waiting), self.batch_size)):
            self._waiting += self._draw_round()
        batch = [self._waiting[row] for row in rows]
        for row in reversed(rows):
            del self._waiting[row]
        return batch

    def _draw_round(self) -> list[Drawn]:
        """The next records of every part, as many as its share of a round, in mixed order."""
        state = np.random.SeedSequence((self.seed, self._rounds)).generate_state(1, np.uint64)
        self._rounds += 1
        generator = torch.Generator().manual_seed(int(state[0]) >> 1)
        # Systematic sampling: one draw shifts the borders between the parts.
        draw = torch.rand((), generator=generator, dtype=torch.float64)
        reached = (self._ends * self.batch_size - draw).ceil().clamp(0, self.batch_size).long()
        counts = reached.diff(prepend=torch.zeros(1, dtype=torch.int64)).tolist()
        new = [list(islice(records, count)) for records, count in zip(self._records, counts, strict=True)]
        self._places = [own[-1].after if own else place for own, place in zip(new, self._places, strict=True)]
        drawn = [one for own in new for one in own]
        if len(self._parts) == 1:
            return drawn
        return [drawn[row] for row in torch.randperm(len(drawn), generator=generator).tolist()]

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
        for drawn in self._held[row:] + self._held[:row]:
            view = self._view(drawn)
            if view is not None:
                return view
        raise self._nothing_usable()

    def _view(self, drawn: Drawn) -> tuple[Tensor, Tensor | None, str] | None:
        """Image, depth and caption of a record, or None where it cannot be used, which is listed."""
        epoch = drawn.place.epoch
        try:
            sample = drawn.record.decode()
            image, depth = view_sample(sample, self._views[drawn.canvas], epoch % self.settings.views)
        except ValueError as error:
            self.broken[drawn.location, drawn.record.key] = str(error)
            return None
        return image, depth, sample.caption_of(epoch, self.seed)

    def _nothing_usable(self) -> ValueError:
        (location, key), reason = next(reversed(self.broken.items()))
        return ValueError(f"A whole batch cannot be used; the last sample of it: {location}, {key}: {reason}.")


def _seed_of_part(seed: int, part: int) -> int:
    """Parts have orders of their own; the first, or only one, has the run's."""
    return seed if part == 0 else int(np.random.SeedSequence((seed, part)).generate_state(1, np.uint32)[0])
