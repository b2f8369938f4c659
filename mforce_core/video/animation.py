"""Animated pictures that FFmpeg does not decode, or not whole: WebP, and AVIF with transparency, read with Pillow.

GIF and PNG are not among them, of whose pictures Pillow puts some together wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from ..picture.files import frame_count, open_image
from ..picture.reading import upright_rgb
from ..reasons import reason_of
from .timing import TimeStamps, longer_in_browsers, uneven_times

#: Of times in a file, in seconds.
_UNIT = Fraction(1, 1000)
#: Beginnings of WebP and of an AVIF with several pictures; dots stand for the size of what follows.
_WEBP, _AVIF = re.compile(rb"RIFF....WEBP", re.DOTALL), re.compile(rb"....ftypavis", re.DOTALL)


def is_animation(path: Path) -> bool:
    """Whether a file is one that `AnimationReader` is for; an AVIF without transparency is not."""
    with path.open("rb") as file:
        start = file.read(12)
    if not (_WEBP.match(start) or (_AVIF.match(start) and ".avif" in Image.registered_extensions())):
        return False
    with open_image(path) as image:
        return frame_count(image) > 1 and (image.format == "WEBP" or image.mode == "RGBA")


class AnimationReader:
    """The pictures of an animated WebP or AVIF; attributes and iteration as of `reader.VideoReader`.

    Args:
        path: of the file.
        start, duration: seconds that are left out at the beginning, and that are read; 0 reads to the end.

    Attributes:
        begins: seconds at which the first picture is shown.
        breaks_off: a sentence for a file of which not all pictures can be decoded, known when they have been read.

    Raises:
        ValueError: not a picture that can be read.
    """

    def __init__(self, path: Path, *, start: float = 0.0, duration: float = 0.0) -> None:
        self._path, self.begins = path, start
        self._image = _opened(path)
        self._ends = start + duration if duration else float("inf")
        self.breaks_off: str | None = None
        self._read = 0
        self._notes: dict[str, None] = {}

    @property
    def count(self) -> int:
        """How many pictures are read."""
        return len(self._part)

    @property
    def rate(self) -> Fraction:
        """Pictures a second, on average."""
        return len(self._spans) / (self._spans[-1][1] * _UNIT)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on pictures read so far that are not read as they are stored."""
        return tuple(self._notes)

    @property
    def times(self) -> TimeStamps | None:
        """When the pictures read so far are shown, None where they come at the rate."""
        if not self._read:
            return None
        shown = [self._spans[number] for number in self._part[: self._read]]
        end = round(min(shown[-1][1], self._ends / _UNIT))
        return uneven_times([*(begin for begin, _ in shown), end], _UNIT, self.rate, self.begins)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Pictures (H, W, 3) uint8, upright, what is transparent on white."""
        self._read = 0
        for number in self._part:
            self._image.seek(number)
            notes: list[str] = []
            picture = upright_rgb(self._image, self._path.name, notes)
            self._notes |= dict.fromkeys(notes)
            self._read += 1
            yield np.asarray(picture)

    @property
    def _part(self) -> list[int]:
        """Numbers of the pictures that are read."""
        return [n for n, (begin, _) in enumerate(self._spans) if self.begins <= float(begin * _UNIT) < self._ends]

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        """When pictures begin and end, which a file tells while it is decoded."""
        spans, added = [], 0
        with _opened(self._path) as image:
            for number in range(frame_count(image)):
                try:
                    image.seek(number)
                    image.load()
                except Exception as error:  # as in `open_image`
                    reason = reason_of(error)
                    self.breaks_off = f"{self._path.name} breaks off: picture {number + 1} is damaged ({reason})."
                    break
                begins, lasts = image.info["timestamp"] + added, image.info["duration"]
                longer = longer_in_browsers(lasts, _UNIT)
                spans.append((begins, begins + lasts + longer))
                added += longer
        return spans

    def __enter__(self) -> AnimationReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._image.close()


def _opened(path: Path) -> Any:
    """A picture of Pillow, whose plugins add what it does not declare; the first of an animation is decoded."""
    return open_image(path)
