"""Records of shards in the order in which a stream uses them.

Records are read in windows, and a window is shuffled as a whole. Where a run is in its data is then four numbers, and
resuming reads one window again, not everything before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import torch

from .buckets import nearest_canvas
from .sample import Broken
from .shards import MissingShardError, Record, Shard
from .views import Size


class Place(NamedTuple):
    """Where a record is: its window, by epoch, position in the epoch's order of shards and record in the shard at which
    it begins, and how many records of the window are ``drawn`` before it."""

    epoch: int = 0
    shard: int = 0
    record: int = 0
    drawn: int = 0

    @property
    def window(self) -> Place:
        """That of the window's first record."""
        return self._replace(drawn=0)


class Drawn(NamedTuple):
    """A record, the canvas that it is for, where it comes from (``part`` is the number of the data set) and is."""

    record: Record
    canvas: Size
    location: str
    part: int
    place: Place

    @property
    def after(self) -> Place:
        """From where to draw what comes next."""
        return self.place._replace(drawn=self.place.drawn + 1)


class Windows:
    """The endless sequence of a data set's records; the order of its shards is drawn anew every epoch.

    What is damaged is left out and listed in ``broken``, by shard and key. Of several canvases a record is for the one
    whose shape is nearest to its picture's, which is read off the picture's header.

    Args:
        shards: from :func:`.shards.find_shards`.
        part: number of the data set among those of a mixture.
        seed: of the order.
        window: records that are shuffled together, and held in memory as they lie on disk.
        canvases: of the pictures, (height, width).
        broken: where to list it.
    """

    def __init__(
        self,
        shards: list[Shard],
        *,
        part: int,
        seed: int,
        window: int,
        canvases: list[Size],
        broken: dict[tuple[str, str], str],
    ) -> None:
        self.shards, self.part, self.seed, self.window = shards, part, seed, window
        self.canvases, self.broken = canvases, broken

    def count(self) -> int:
        """Records that can be read; reads all shards."""
        return sum(not isinstance(item, Broken) for shard in self.shards for item, _ in self._read(shard))

    def draw(self, start: Place) -> Iterator[Drawn]:
        """Records in the order of use, from a place on."""
        for begin, window in self._windows(start.window):
            yield from self._shuffled(begin, window)[start.drawn if begin == start.window else 0 :]

    def find(self, places: set[Place]) -> dict[Place, Drawn]:
        """The records at places; the windows that they are in are read again, a shard once for all of its windows.

        Raises:
            ValueError: the shards do not have all of them any more.
        """
        found: dict[Place, Drawn] = {}
        windows: Iterator[tuple[Place, list[tuple[Record, Size, str]]]] = iter(())
        at = None
        for wanted in sorted({place.window for place in places}):
            # A shard is read from its beginning on, wherever in it a window begins.
            if at is None or (at.epoch, at.shard) != (wanted.epoch, wanted.shard):
                windows = self._windows(wanted)
            at, window = next(one for one in windows if one[0] >= wanted)
            found |= {drawn.place: drawn for drawn in self._shuffled(at, window) if drawn.place in places}
        if len(found) < len(places):
            raise ValueError(
                f"{len(places) - len(found)} of the pictures that waited for a batch when the run stopped are not in "
                "the shards any more: it goes on only with those that it began with."
            )
        return found

    def _shuffled(self, begin: Place, window: list[tuple[Record, Size, str]]) -> list[Drawn]:
        """The records of a window in the order of use."""
        digest = hashlib.sha256(f"{self.seed}/{tuple(begin)}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        order = torch.randperm(len(window), generator=generator).tolist()
        return [
            Drawn(record, canvas, location, self.part, begin._replace(drawn=drawn))
            for drawn, (record, canvas, location) in enumerate(window[index] for index in order)
        ]

    def _windows(self, begin: Place) -> Iterator[tuple[Place, list[tuple[Record, Size, str]]]]:
        """The place at which every window begins, and its records with canvas and location."""
        while True:
            order = torch.randperm(
                len(self.shards), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + begin.epoch)
            ).tolist()
            epoch, first, skipped = begin.epoch, begin.shard, begin.record
            window: list[tuple[Record, Size, str]] = []
            empty = begin == Place(epoch)
            for position in range(first, len(order)):
                shard = self.shards[order[position]]
                for item, number in self._read(shard):
                    if isinstance(item, Broken) or (position == first and number < skipped):
                        continue
                    canvas = self._canvas(item, shard)
                    if canvas is None:
                        continue
                    window.append((item, canvas, shard.location))
                    empty = False
                    if len(window) == self.window:
                        yield begin, window
                        begin, window = Place(epoch, position, number + 1), []
            if empty:
                raise ValueError("The shards hold no sample at all: look at them with mforce data check.")
            if window:
                yield begin, window
            begin = Place(epoch + 1)

    def _read(self, shard: Shard) -> Iterator[tuple[Record | Broken, int]]:
        """What a shard holds, numbered; what is damaged is listed."""
        try:
            for number, item in enumerate(shard.records()):
                if isinstance(item, Broken):
                    self.broken[item.shard, item.key] = item.reason
                yield item, number
        except MissingShardError as error:
            self.broken[shard.location, ""] = str(error)

    def _canvas(self, record: Record, shard: Shard) -> Size | None:
        """That of a record, or None where the size of its picture cannot be read, which is listed."""
        if len(self.canvases) == 1:
            return self.canvases[0]
        try:
            return nearest_canvas(record.size(), self.canvases)
        except ValueError as error:
            self.broken[shard.location, record.key] = str(error)
            return None
