"""Depth maps of a clip in numbered files, ``name.0001.exr`` to ``name.0240.exr``, written ``name.####.exr``."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .files import SUFFIXES

_NUMBERED = re.compile(r"^(.*?)(\d+)(\.[^.]+)$")
_PLACE = re.compile(r"#+")
_LISTED = 8  # missing frames that a message names

#: What stands in for a frame that is not there.
STOP, HOLD, SKIP = MISSING = ("stop", "hold", "skip")


@dataclass(frozen=True)
class Frames:
    """The files of a clip in their order, and notes on frames that are not there."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...]


def depth_file_names(folder: Path) -> list[str]:
    """Depth files in a folder and the folders in it, sequences first: names relative to it, with slashes.

    Folders that links lead to are looked into once.
    """
    singles: list[str] = []
    sequences: list[str] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        folders[:] = [one for one in folders if os.path.realpath(os.path.join(parent, one)) not in seen]
        fitting = [Path(parent, file) for file in files if Path(file).suffix.lower() in SUFFIXES]
        names = [path.relative_to(folder).as_posix() for path in fitting]
        singles += names
        sequences += find_patterns(names)
    return sorted(sequences) + sorted(singles)


def find_patterns(names: Iterable[str]) -> list[str]:
    """``name.####.exr`` for every two or more names that differ in their last number alone."""
    counts: defaultdict[str, int] = defaultdict(int)
    for name in names:
        if match := _NUMBERED.match(name):
            counts[f"{match[1]}{'#' * len(match[2])}{match[3]}"] += 1
    return [pattern for pattern, count in counts.items() if count > 1]


def is_pattern(name: str) -> bool:
    """Whether a name stands for a sequence."""
    return len(_PLACE.findall(Path(name).name)) == 1


def frame_numbers(pattern: Path) -> dict[int, Path]:
    """The files of a sequence by their numbers, in order; numbers may have more digits than places, as in 10000."""
    before, places, after = re.split(r"(#+)", pattern.name)
    fits = re.compile(rf"{re.escape(before)}(\d{{{len(places)},}}){re.escape(after)}")
    if not pattern.parent.is_dir():
        return {}
    found = ((fits.fullmatch(path.name), path) for path in pattern.parent.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def choose_frames(pattern: Path, first: int | None = None, last: int | None = None, missing: str = STOP) -> Frames:
    """The files of a sequence from the first to the last frame.

    Args:
        pattern: such as ``name.####.exr``.
        first, last: numbers of frames, both included; None for the sequence's own.
        missing: one of `MISSING`. stop: frames that are not there are an error. hold: the frame before stands in (at
            the beginning the next one). skip: they are left out.

    Raises:
        ValueError: there is no such file, or a frame is not there that should be.
    """
    found = frame_numbers(pattern)
    if not found:
        raise ValueError(f"{pattern} has no frames: there is no file of this name with a number in place of #.")
    first = min(found) if first is None else first
    last = max(found) if last is None else last
    if last < first:
        raise ValueError(f"the last frame, {last}, comes before the first, {first}.")
    known = {number: path for number, path in found.items() if first <= number <= last}
    if not known:
        raise ValueError(f"{pattern} has frames {min(found)} to {max(found)}, none between {first} and {last}.")
    absent = last - first + 1 - len(known)
    if not absent:
        return Frames(tuple(known.values()), ())
    gaps = _gaps(sorted(known), first, last)
    listed = ", ".join(gaps[:_LISTED]) + (", ..." if len(gaps) > _LISTED else "")
    said = f"{pattern.name} lacks {absent} of the frames {first} to {last}: {listed}"
    if missing == STOP:
        raise ValueError(f"{said}; render them, choose other frames, or let others stand in.")
    if missing == SKIP:
        return Frames(tuple(known.values()), (f"{said}; they were left out.",))
    held, current = [], next(iter(known.values()))
    for number in range(first, last + 1):
        current = known.get(number, current)
        held.append(current)
    return Frames(tuple(held), (f"{said}; the frames before stand in.",))


def _gaps(known: list[int], first: int, last: int) -> list[str]:
    """Runs of numbers between first and last that are not known, such as "3" and "7-9"."""
    gaps = []
    for before, after in zip([first - 1, *known], [*known, last + 1], strict=True):
        if after - before > 1:
            start, end = before + 1, after - 1
            gaps.append(str(start) if start == end else f"{start}-{end}")
    return gaps
