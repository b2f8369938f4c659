"""What is in a collection: counts, sizes, ranges of depth by kind, captions, notes, and everything unusable."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...mforce_core.encoders.words import WordTextEncoder
from .sample import Broken, Kind, Sample
from .shards import Shard, ShardError

#: Edges of the histogram of depth: 12 decades, each bin 0.7% wide, so that all pixels are counted in little memory.
_EDGES = np.logspace(-6, 6, 4097)
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
#: What the numbers of each kind are in.
_UNITS: dict[Kind, str] = {
    "metric": "meters, after depth_scale",
    "relative": "as stored, after depth_scale",
    "disparity": "1 / disparity",
}

#: How many of the most frequent sizes and unknown words are named.
_NAMED = 20


@dataclass
class _Range:
    """Smallest, largest and all depth of the maps of one kind."""

    maps: int = 0
    nearest: float = float("inf")
    farthest: float = 0.0
    bins: np.ndarray = field(default_factory=lambda: np.zeros(len(_EDGES) + 1, dtype=np.int64))

    def add(self, known: np.ndarray) -> None:
        self.maps += 1
        self.bins += np.bincount(np.searchsorted(_EDGES, known), minlength=len(_EDGES) + 1)
        self.nearest, self.farthest = min(self.nearest, float(known.min())), max(self.farthest, float(known.max()))

    def report(self) -> dict[str, float]:
        """Smallest and largest depth, and percentiles over all pixels to within a bin."""
        total, sums = int(self.bins.sum()), self.bins.cumsum()
        bins = [min(int(np.searchsorted(sums, total * p / 100)), len(_EDGES) - 1) for p in _PERCENTILES]
        edges = np.clip(_EDGES[bins], self.nearest, self.farthest)
        values = {f"p{p}": float(edge) for p, edge in zip(_PERCENTILES, edges, strict=True)}
        return {"min": self.nearest, **values, "max": self.farthest}


@dataclass
class _Note:
    """What was remarked of so many samples, in the words of the first."""

    example: Broken
    count: int = 0


@dataclass
class Check:
    """Grows by `add`; `report` is what it has found so far."""

    words: WordTextEncoder | None = None
    samples: int = 0
    usable: int = 0
    with_depth: int = 0
    sparse: int = 0
    without_caption: int = 0
    with_several_captions: int = 0
    broken: list[Broken] = field(default_factory=list)
    _sizes: Counter[str] = field(default_factory=Counter)
    _ranges: dict[Kind, _Range] = field(default_factory=dict)
    _notes: dict[str, _Note] = field(default_factory=dict)
    _unknown: Counter[str] = field(default_factory=Counter)
    _keys: Counter[str] = field(default_factory=Counter)
    _lengths: list[int] = field(default_factory=list)
    _shares: list[float] = field(default_factory=list)

    def add(self, shard: Shard) -> None:
        """Decode everything in a shard. Never raises for what is in it."""
        try:
            for record in shard.records():
                self.samples += 1
                if isinstance(record, Broken):
                    self.broken.append(record)
                    continue
                self._keys[record.key] += 1
                try:
                    sample = record.decode()
                except ValueError as error:
                    self.broken.append(Broken(shard.location, record.key, str(error)))
                    continue
                self._add(sample)
                for note in sample.notes:
                    # Alike but for names and numbers.
                    kind = re.sub(r"\S*\d\S*|\S+\.\w{3,4}\b", "...", note)
                    found = self._notes.setdefault(kind, _Note(Broken(shard.location, record.key, note)))
                    found.count += 1
        except ShardError as error:
            self.broken.append(Broken(shard.location, "", str(error)))

    def _add(self, sample: Sample) -> None:
        self.usable += 1
        height, width = sample.image.shape[:2]
        self._sizes[f"{width}x{height}"] += 1
        if sample.caption:
            self._lengths.append(len(sample.caption.split()))
            if self.words is not None:
                self._unknown.update(self.words.unknown_words(sample.caption))
        else:
            self.without_caption += 1
        self.with_several_captions += len(sample.captions) > 1
        if sample.depth is None:
            return
        self.with_depth += 1
        self.sparse += sample.sparse
        known = sample.depth[np.isfinite(sample.depth)]
        self._shares.append(known.size / sample.depth.size)
        assert sample.kind is not None  # it has depth
        self._ranges.setdefault(sample.kind, _Range()).add(known)

    def report(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        found: dict[str, Any] = {
            "samples": self.samples,
            "usable": self.usable,
            "sizes": dict(self._sizes.most_common(_NAMED)),
            "different_sizes": len(self._sizes),
            "captions": {
                "missing": self.without_caption,
                "several": self.with_several_captions,
                "words": _percentiles(self._lengths),
            },
            "depth": {
                "maps": self.with_depth,
                "without": self.usable - self.with_depth,
                "sparse": self.sparse,
                "valid_share": _percentiles(self._shares),
                "kinds": {
                    kind: {"maps": found.maps, "unit": _UNITS[kind], **found.report()}
                    for kind, found in self._ranges.items()
                },
            },
            "duplicate_keys": sorted(key for key, count in self._keys.items() if count > 1),
            "broken": [entry._asdict() for entry in self.broken],
            "notes": [
                {"count": note.count, **note.example._asdict()}
                for note in sorted(self._notes.values(), key=lambda note: -note.count)
            ],
        }
        if self.words is not None:
            found["captions"]["unknown_words"] = dict(self._unknown.most_common(_NAMED))
        return found


def check(shards: Iterable[Shard], words: WordTextEncoder | None, advance: Callable[[], None]) -> dict[str, Any]:
    """Look at every sample of the shards; see :class:`Check`.

    Args:
        words: names the words of captions that it does not know.
        advance: called after every shard.
    """
    found = Check(words)
    for shard in shards:
        found.add(shard)
        advance()
    return found.report()


def _percentiles(values: list[Any]) -> dict[str, float]:
    if not values:
        return {}
    marks = (0, 5, 50, 95, 100)
    return {f"p{mark}": round(float(v), 4) for mark, v in zip(marks, np.percentile(values, marks), strict=True)}
