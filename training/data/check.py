"""What is in a collection: counts, sizes, ranges of depth, captions, and everything that cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...mforce_core.encoders.words import WordTextEncoder
from .sample import Broken, Sample
from .shards import Shard, ShardError

#: Edges of the histogram of depth: 12 decades, each bin 0.7% wide, so that all pixels are counted in little memory.
_EDGES = np.logspace(-6, 6, 4097)
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
#: How many of the most frequent sizes and unknown words are named.
_NAMED = 20


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
    notes: list[Broken] = field(default_factory=list)
    _sizes: Counter[str] = field(default_factory=Counter)
    _kinds: Counter[str] = field(default_factory=Counter)
    _unknown: Counter[str] = field(default_factory=Counter)
    _keys: Counter[str] = field(default_factory=Counter)
    _lengths: list[int] = field(default_factory=list)
    _shares: list[float] = field(default_factory=list)
    _depth: np.ndarray = field(default_factory=lambda: np.zeros(len(_EDGES) + 1, dtype=np.int64))
    _nearest: float = float("inf")
    _farthest: float = 0.0

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
                self.notes += [Broken(shard.location, record.key, note) for note in sample.notes]
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
        self._kinds[str(sample.kind)] += 1
        known = sample.depth[np.isfinite(sample.depth)]
        self._shares.append(known.size / sample.depth.size)
        self._depth += np.bincount(np.searchsorted(_EDGES, known), minlength=len(_EDGES) + 1)
        self._nearest, self._farthest = min(self._nearest, float(known.min())), max(self._farthest, float(known.max()))

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
                "sparse": self.sparse,
                "kinds": dict(self._kinds),
                "valid_share": _percentiles(self._shares),
                "range": self._range(),
            },
            "duplicate_keys": sorted(key for key, count in self._keys.items() if count > 1),
            "broken": [entry._asdict() for entry in self.broken],
            "notes": [entry._asdict() for entry in self.notes],
        }
        if self.words is not None:
            found["captions"]["unknown_words"] = dict(self._unknown.most_common(_NAMED))
        return found

    def _range(self) -> dict[str, float]:
        """Smallest and largest depth, and percentiles over all pixels to within a bin."""
        total = int(self._depth.sum())
        if total == 0:
            return {}
        sums = self._depth.cumsum()
        bins = [min(int(np.searchsorted(sums, total * p / 100)), len(_EDGES) - 1) for p in _PERCENTILES]
        values = {f"p{p}": float(_EDGES[b]) for p, b in zip(_PERCENTILES, bins, strict=True)}
        return {"min": self._nearest, **values, "max": self._farthest}


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
