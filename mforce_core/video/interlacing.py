"""Frames of interlaced clips, whose two halves were taken one after the other, as frames of one moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from .opening import import_av


def progressive(frames: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Each decoded frame, and it without the comb of two moments that moving edges have in it.

    FFmpeg's ``bwdif`` takes the moment of a frame's first half. Frames that do not call themselves interlaced stay.
    """
    frames = iter(frames)
    for frame in frames:
        if frame.interlaced_frame:
            yield from _deinterlaced(frame, frames)
            return
        yield frame, frame


def _deinterlaced(first: Any, others: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """The same for the first interlaced frame and all that follow, of which the filter looks one ahead."""
    av = import_av()
    graph = av.filter.Graph()
    shape = {"width": first.width, "height": first.height, "format": first.format}
    source, sink = graph.add_buffer(**shape, time_base=first.time_base), graph.add("buffersink")
    bwdif = graph.add("bwdif", "send_frame:auto:interlaced")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    waiting: deque[Any] = deque()
    for frame in chain([first], others, [None]):
        if frame is not None:
            waiting.append(frame)
        graph.push(frame)
        with suppress(av.error.BlockingIOError, av.error.EOFError):  # it wants the next frame, or is done
            while True:
                made = graph.pull()
                yield waiting.popleft(), made
