"""Records of shards in the order in which a stream uses them.

Records are read in windows, and a window is shuffled as a whole. Where a run is in its data is then four numbers, and
resuming reads one window again, not everything before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import torch

from .sample import Broken
from .shards import MissingShardError, Record, Shard


class Place(NamedTuple):
    """Where a window begins, as position in the epoch's order of shards and record in the shard; ``drawn`` records of
    it have been used."""

    epoch: int = 0
    shard: int = 0
    record: int = 0
    drawn: int = 0


class Drawn(NamedTuple):
    """A record, where it comes from and the place after it."""

    record: Record
    location: str
    after: Place


class Windows:
    """The endless sequence of a data set's records; the order of its shards is drawn anew every epoch.

    What is damaged is left out and listed in ``broken``, by shard and key.

    Args:
        shards: from :func:`.shards.find_shards`.
        seed: of the order.
        window: records that are shuffled together, and held in memory as they lie on disk.
        broken: where to list it.
    """

    def __init__(self, shards: list[Shard], seed: int, window: int, broken: dict[tuple[str, str], str]) -> None:
        self.shards, self.seed, self.window, self.broken = shards, seed, window, broken

    def count(self) -> int:
        """Records that can be read; reads all shards."""
        return sum(not isinstance(item, Broken) for shard in self.shards for item, _ in self._read(shard))

    def draw(self, start: Place) -> Iterator[Drawn]:
        """Records in the order of use, from a place on."""
        for begin, window, after in self._windows(start):
            digest = hashlib.sha256(f"{self.seed}/{tuple(begin)}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            order = torch.randperm(len(window), generator=generator).tolist()
            drawn = start.drawn if begin == start._replace(drawn=0) else 0
            for used, index in enumerate(order[drawn:], drawn + 1):
                place = begin._replace(drawn=used) if used < len(order) else after
                record, location = window[index]
                yield Drawn(record, location, place)

    def _windows(self, start: Place) -> Iterator[tuple[Place, list[tuple[Record, str]], Place]]:
        """Windows with the places where they begin and where the next one does."""
        begin = start._replace(drawn=0)
        while True:
            order = torch.randperm(
                len(self.shards), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + begin.epoch)
            ).tolist()
            epoch, first, skipped = begin.epoch, begin.shard, begin.record
            window: list[tuple[Record, str]] = []
            empty = begin == Place(epoch)
            for position in range(first, len(order)):
                shard = self.shards[order[position]]
                for item, number in self._read(shard):
                    if isinstance(item, Broken) or (position == first and number < skipped):
                        continue
                    window.append((item, shard.location))
                    empty = False
                    if len(window) == self.window:
                        after = Place(epoch, position, number + 1)
                        yield begin, window, after
                        begin, window = after, []
            if empty:
                raise ValueError("The shards hold no sample at all: look at them with mforce data check.")
            if window:
                yield begin, window, Place(epoch + 1)
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
