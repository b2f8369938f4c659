"""Pictures of video files, read one after the other with PyAV."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from ..file_kinds import what_is
from .as_shown import AsShown
from .interlacing import progressive
from .opening import import_av, name_of, opened
from .timing import TimeStamps, longer_in_browsers, uneven_times
from .transparency import decoder_of

#: Seconds by which a key frame is looked for farther back, the first time.
_FARTHER = 1.0
#: Share of the length that a file names from which on it is whole: sound may be a little longer than pictures.
_WHOLE = 0.9
#: Frames a second where a file does not say, and those that no clip has: FFmpeg 8 takes raw DV for one of 60,000.
_USUAL_RATE, _TOO_FAST = Fraction(24), 10_000
#: Decoders of what FFmpeg takes for pictures made of letters, by the ending of a file's name alone: .txt, .nfo, .bin.
_TEXT = ("ansi", "bintext", "idf", "xbin")
#: Animated pictures, whose times are those of browsers.
_ANIMATIONS = ("gif", "apng")
#: What FFmpeg calls a TIFF file, of which it would read the first page alone.
_PAGES = "tiff_pipe"


class VideoReader:
    """The pictures of a file's video stream as a player shows them; iterating decodes one after the other.

    Args:
        source: a file or its open content.
        start, duration: seconds that are left out at the beginning, and that are read; 0 reads to the end.

    Attributes:
        rate: frames a second.
        count: how many frames the file says it has, 0 where it does not.
        begins: seconds at which the first picture is shown, in the time of the file, whose sound has the same.

    Raises:
        ValueError: not a video, damaged, or without pictures.
        ModuleNotFoundError: PyAV is not installed.
    """

    def __init__(self, source: Path | BinaryIO, *, start: float = 0.0, duration: float = 0.0) -> None:
        self._av = import_av()
        self._source, self._start, self._duration = source, start, duration
        self.name = name_of(source)
        if isinstance(source, Path) and source.is_dir():
            raise ValueError(f"{source} is a folder and no video: make a video of its pictures first, as ffmpeg does.")
        if isinstance(source, Path) and not source.is_file():
            raise ValueError(f"There is no video {source}.")
        self._container, stream = self._open()
        self._stream, self._decoder, self._as_shown = stream, decoder_of(stream), AsShown(stream)
        self.rate = _rate(stream)
        self.begins: float = max(start, float((stream.start_time or 0) * (stream.time_base or 0)))
        length = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        self._shown, self._last_lasts, self._ends = array("q"), 0, 0
        self.count: int = stream.frames or round(length * self.rate)
        #: Seconds that the file says it lasts, 0 where it does not, and the time of the last picture that was read.
        self._length = length or self._named_length(stream)
        self._reached: float | None = None
        self._cut = False
        self._size: tuple[int, int] | None = None
        if start or duration:
            self.count = round(min(duration or length, max(0.0, length - start)) * self.rate)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Pictures (H, W, 3) uint8, upright.

        Raises:
            ValueError: the file is damaged, or its pictures change their size.
        """
        try:
            for frame, clear in progressive(self._frames()):
                if frame.time is not None and frame.time < self._start:
                    continue
                if self._duration and frame.time is not None and frame.time >= self._start + self._duration:
                    self._ends = min(frame.pts, round((self._start + self._duration) / self._stream.time_base))
                    return
                self._reached = frame.time
                self._note_time(frame)
                yield self._as_shown(clear)
        except self._av.error.FFmpegError as error:
            if self._size is None:
                raise ValueError(
                    f"No picture of {self.name} can be decoded: it is damaged, or {self._stream.codec.long_name} of a"
                    " kind that PyAV does not read. Convert it to MP4 first."
                ) from None
            raise ValueError(
                f"{self.name} is damaged: a picture after {self._reached or 0:.1f} s cannot be decoded"
                f" ({error.strerror}). Cut the clip there, or write it anew with a program that leaves them out."
            ) from None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on pictures that are not read as they are stored; that on transparency comes with the first."""
        return tuple(f"{self.name} {note}" for note in self._as_shown.notes)

    @property
    def breaks_off(self) -> str | None:
        """A sentence for a file whose pictures end long before the end that it names, or with one that is damaged."""
        if self._duration or self._reached is None:
            return None
        unit = self._stream.time_base or 0
        start, end = float((self._stream.start_time or 0) * unit), float(self._end * unit)
        read = max(self._reached + float(1 / self.rate), end) - start
        if read >= _WHOLE * self._length and not self._cut:
            return None
        return f"{self.name} breaks off: its pictures end after {read:.1f} of {self._length:.1f} s."

    @property
    def times(self) -> TimeStamps | None:
        """When the pictures read so far are shown, None where they come at the rate or the file does not say."""
        unit = self._stream.time_base
        if not self._shown or not unit:
            return None
        return uneven_times([*self._shown, self._end], unit, self.rate, self.begins)

    @property
    def _end(self) -> int:
        """When the last picture that was read ends, in units of the file."""
        last, unit = self._shown[-1], self._stream.time_base
        if self._ends > last or not unit:
            return self._ends
        end = last + (self._last_lasts or max(1, round(1 / (self.rate * unit))))
        return min(end, round((self._start + self._duration) / unit)) if self._duration else end

    @property
    def _is_animation(self) -> bool:
        """Whether the times of pictures follow from all those before them."""
        return self._container.format.name in _ANIMATIONS

    def _named_length(self, stream: Any) -> float:
        """Seconds that the file as a whole lasts from its first picture on: Matroska's length begins at 0."""
        length: float = (self._container.duration or 0) / self._av.time_base
        if "matroska" in self._container.format.name and length:
            length -= float((stream.start_time or 0) * (stream.time_base or 0))
        return length

    def _check_size(self, frame: Any) -> None:
        self._size = self._size or (frame.width, frame.height)
        if self._size != (frame.width, frame.height):
            width, height = self._size
            raise ValueError(
                f"{self.name} changes its size from {width}x{height} to {frame.width}x{frame.height}: cut it there, or"
                " scale it to one size."
            )

    def _note_time(self, frame: Any) -> None:
        # A picture without a time stamp takes the one before it, and so none of them counts.
        before = self._shown[-1] if self._shown else 0
        self._shown.append(before if frame.pts is None else frame.pts)
        self._last_lasts = frame.duration

    def _frames(self) -> Iterator[Any]:
        """Decoded frames in the order in which they are shown, the first no later than ``start``."""
        first, last, added, packets = None, 0, 0, self._packets()
        for packet in packets:
            if packet.dts is not None and not packet.is_corrupt:  # as the last one is of a file that is cut within it
                first, last = packet.dts if first is None else first, packet.dts + (packet.duration or 0)
            try:
                frames = self._decoder.decode(packet)
            except self._av.error.FFmpegError:
                if self._size is None or any(later.size for later in packets):
                    raise
                self._cut = True  # the file ends within its last picture
                return
            for frame in frames:
                self._check_size(frame)
                if self._is_animation:
                    longer = longer_in_browsers(frame.duration, frame.time_base)
                    frame.pts, frame.duration, added = frame.pts + added, frame.duration + longer, added + longer
                yield frame
        stream = self._stream
        if first is None or not stream.duration or "mov" not in self._container.format.name:
            return
        # Lengths in MP4 are those between two pictures that are decoded one after the other, not shown. Only their
        # sum, which is the stream's, says how long the last one is shown.
        if last - first >= stream.duration:
            self._ends = (stream.start_time or 0) + stream.duration
        elif first <= (stream.start_time or 0):
            self._cut = True

    def _packets(self) -> Iterator[Any]:
        """Packets from a key frame on that is shown no later than ``start``, which need none before it.

        Files are searched by the order of decoding, in which a key frame comes earlier than it is shown. Where one is
        found that is shown too late, the search goes farther back, and at last the file is read from its beginning.
        """
        back, moved = 0.0, False
        if self._is_animation:
            return self._container.demux(self._stream)
        while self._stream.time_base and back < self._start:
            try:
                self._container.seek(int((self._start - back) / self._stream.time_base), stream=self._stream)
            except self._av.error.FFmpegError:
                break
            moved, packets = True, self._container.demux(self._stream)
            first = self._key_frame(packets)
            if first is not None:
                return chain([first], packets)
            back = 2 * back or _FARTHER
        if moved:
            self._container.close()
            self._container, self._stream = self._open()
            self._decoder = decoder_of(self._stream)
        return self._container.demux(self._stream)

    def _key_frame(self, packets: Iterator[Any]) -> Any:
        """The first key frame of packets, None unless it is shown no later than ``start``."""
        for packet in packets:
            if packet.is_keyframe:
                return packet if self._by_start(packet.pts) else None
            if packet.dts is not None and not self._by_start(packet.dts):
                break
        return None

    def _by_start(self, time: int | None) -> bool:
        return time is not None and float(time * self._stream.time_base) <= self._start

    def _open(self) -> tuple[Any, Any]:
        """The source's container and its first video stream."""
        try:
            container = opened(self._source)
        except self._av.error.FFmpegError as error:
            kind = what_is(self._source) if isinstance(self._source, Path) else None
            found = f"is not a video but {kind}." if kind else f"is not a video that can be read ({error.strerror})."
            raise ValueError(f"{self.name} {found}") from None
        stream = _pictures(container)
        if stream is None:
            container.close()
            raise ValueError(f"{self.name} has no video stream, only sound, a cover or data.")
        if stream.codec_context is None:
            container.close()
            raise ValueError(f"{self.name} is of a kind that PyAV does not read. Convert it to MP4 first.")
        if stream.codec_context.name in _TEXT:
            container.close()
            raise ValueError(f"{self.name} is no video: FFmpeg would show its bytes as text.")
        if container.format.name == _PAGES:
            container.close()
            raise ValueError(f"{self.name} is a TIFF picture and no clip: its pages have no times.")
        stream.thread_type = "AUTO"
        return container, stream

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()


def _pictures(container: Any) -> Any:
    """The stream that a player shows, None where there is none: the picture on a cover is a stream of video, too."""
    cover = import_av().stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    best = container.streams.best("video")
    return best if best in streams else next(iter(streams), None)


def _rate(stream: Any) -> Fraction:
    """Frames a second, on average."""
    said = stream.average_rate, stream.guessed_rate, _USUAL_RATE
    return next(Fraction(rate) for rate in said if rate and rate < _TOO_FAST)
