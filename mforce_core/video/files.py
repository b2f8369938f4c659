"""Video files, read and written frame by frame with PyAV."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, BinaryIO

import numpy as np

from .timing import TimeStamps, uneven_times

#: Of H.264; 16 is hardly to be told from the source.
_QUALITY = "16"
#: Seconds by which a key frame is looked for farther back, the first time.
_FARTHER = 1.0
#: Share of the length that a file names from which on it is whole: sound may be a little longer than pictures.
_WHOLE = 0.9
#: Frames a second where a file does not say.
_USUAL_RATE = Fraction(24)
#: Matrices of colors, as PyAV calls them.
_BT601, _BT709 = "ITU601", "ITU709"
#: BT.709 in limited range, in the codes of ITU-T H.273 and of FFmpeg, by the names of an encoder's properties.
_COLOR_TAGS = {"color_primaries": 1, "color_trc": 1, "colorspace": 1, "color_range": 1}
#: The codes of RGB, and of files that do not say.
_NO_MATRIX = (0, 2)


class VideoReader:
    """The pictures of a file's first video stream; iterating decodes one after the other.

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
        self.name = source.name if isinstance(source, Path) else "The video"
        if isinstance(source, Path) and source.is_dir():
            raise ValueError(f"{source} is a folder and no video: make a video of its pictures first, as ffmpeg does.")
        if isinstance(source, Path) and not source.is_file():
            raise ValueError(f"There is no video {source}.")
        self._container, stream = self._open()
        self._stream = stream
        self.rate: Fraction = stream.average_rate or stream.guessed_rate or _USUAL_RATE
        self.begins: float = max(start, float((stream.start_time or 0) * (stream.time_base or 0)))
        length = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        self._shown, self._last_lasts = array("q"), 0
        self.count: int = stream.frames or round(length * self.rate)
        #: Seconds that the file says it lasts, 0 where it does not, and the time of the last picture that was read.
        self._length = length or (self._container.duration or 0) / self._av.time_base
        self._reached: float | None = None
        if start or duration:
            self.count = round(min(duration or length, max(0.0, length - start)) * self.rate)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Pictures (H, W, 3) uint8, upright.

        Raises:
            ValueError: the file is damaged, or its pictures change their size.
        """
        size: tuple[int, ...] = ()
        try:
            for frame in self._frames():
                if frame.time is not None and frame.time < self._start:
                    continue
                if self._duration and frame.time is not None and frame.time >= self._start + self._duration:
                    return
                picture = frame.to_ndarray(format="rgb24", **_matrix(frame.colorspace))
                picture = np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))
                if size and picture.shape != size:
                    raise ValueError(
                        f"{self.name} changes its size from {size[1]}x{size[0]} to {picture.shape[1]}x"
                        f"{picture.shape[0]}: cut it there, or scale it to one size."
                    )
                size, self._reached = picture.shape, frame.time
                self._note_time(frame)
                yield picture
        except self._av.error.FFmpegError as error:
            if not size:
                raise ValueError(
                    f"No picture of {self.name} can be decoded: it is damaged, or {self._stream.codec.long_name} of a"
                    " kind that PyAV does not read. Convert it to MP4 first."
                ) from None
            raise ValueError(
                f"{self.name} is damaged: a picture after {self._reached or 0:.1f} s cannot be decoded"
                f" ({error.strerror}). Cut the clip there, or write it anew with a program that leaves them out."
            ) from None

    @property
    def breaks_off(self) -> str | None:
        """A sentence for a file whose pictures were read to their end, long before the one that it names."""
        if self._duration or self._reached is None:
            return None
        start = float((self._stream.start_time or 0) * (self._stream.time_base or 0))
        lasts = float(self._last_lasts * (self._stream.time_base or 0))
        read = self._reached - start + max(float(1 / self.rate), lasts)
        if read >= _WHOLE * self._length:
            return None
        return f"{self.name} breaks off: its pictures end after {read:.1f} of {self._length:.1f} s."

    @property
    def times(self) -> TimeStamps | None:
        """When the pictures read so far are shown, None where they come at the rate or the file does not say."""
        unit = self._stream.time_base
        if not self._shown or not unit:
            return None
        lasts = self._last_lasts or max(1, round(1 / (self.rate * unit)))
        return uneven_times([*self._shown, self._shown[-1] + lasts], unit, self.rate, self.begins)

    def _note_time(self, frame: Any) -> None:
        # A picture without a time stamp takes the one before it, and so none of them counts.
        before = self._shown[-1] if self._shown else 0
        self._shown.append(before if frame.pts is None else frame.pts)
        self._last_lasts = frame.duration

    def _frames(self) -> Iterator[Any]:
        """Decoded frames in the order in which they are shown, the first no later than ``start``."""
        for packet in self._packets():
            yield from packet.decode()

    def _packets(self) -> Iterator[Any]:
        """Packets from a key frame on that is shown no later than ``start``, which need none before it.

        Files are searched by the order of decoding, in which a key frame comes earlier than it is shown. Where one is
        found that is shown too late, the search goes farther back, and at last the file is read from its beginning.
        """
        back, moved = 0.0, False
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
            container = _opened(self._source)
        except self._av.error.FFmpegError as error:
            raise ValueError(f"{self.name} is not a video that can be read ({error.strerror}).") from None
        if not container.streams.video:
            container.close()
            raise ValueError(f"{self.name} has no video stream, only sound or data.")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        return container, stream

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()


class VideoWriter:
    """Writes an H.264 file; pictures of an odd size get one more row or column.

    Args:
        path: of the file, which is whole after the ``with`` block ends.
        rate: frames a second.
        sound_of: a video whose sound is copied, where the file can hold it.
        sound_start: seconds of its sound that are left out.
        times: when pictures are shown that do not come at the rate.
    """

    def __init__(
        self,
        path: Path,
        rate: Fraction,
        sound_of: Path | BinaryIO | None = None,
        *,
        sound_start: float = 0.0,
        times: TimeStamps | None = None,
    ) -> None:
        av = import_av()
        self._av, self._container = av, av.open(_url(path), "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": _QUALITY}
        for name, code in _COLOR_TAGS.items():
            setattr(self._stream.codec_context, name, code)
        if times is not None:
            self._stream.codec_context.time_base = times.unit
        self._source = None if sound_of is None else _opened(sound_of)
        self._sound = self._sound_packets(sound_start)
        self._waiting: Any = next(self._sound, None)
        self._written, self._rate, self._times = 0, rate, times
        self._first_decoded: int | None = None

    def write(self, picture: np.ndarray) -> None:
        """Append a picture (H, W, 3) uint8."""
        height, width = picture.shape[:2]
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self._written:
            self._stream.width, self._stream.height = picture.shape[1], picture.shape[0]
        frame = self._av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format=self._stream.pix_fmt, dst_colorspace=_BT709)
        if self._times is not None:
            frame.pts, frame.time_base = self._times.ticks[self._written], self._times.unit
        packets = self._stream.encode(frame)
        if packets and self._first_decoded is None:
            self._first_decoded = packets[0].dts
        self._container.mux(packets)
        self._written += 1
        self._copy_sound(self._shown_until)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._written:
            self._finish()
        if self._source is not None:
            self._source.close()
        self._container.close()

    @property
    def _shown_until(self) -> float:
        """When the last picture ends."""
        return self._written / float(self._rate) if self._times is None else self._times.seconds(self._written)

    def _finish(self) -> None:
        """Write the pictures that the encoder still holds, which say when the last one ends."""
        packets = self._stream.encode(None)
        if self._times is not None and packets:
            # A file ends with the picture shown last or with the durations of those decoded, whatever comes first.
            first, ends = self._times.ticks[0], self._times.ticks[self._written]
            shown_last = max(packets, key=lambda packet: packet.pts)
            decoded = packets[-1].dts - (packets[0].dts if self._first_decoded is None else self._first_decoded)
            shown_last.duration = ends - shown_last.pts
            packets[-1].duration = ends - first - decoded
        self._container.mux(packets)

    def _copy_sound(self, until: float) -> None:
        """Write the sound up to a time, so that pictures and sound lie beside each other in the file."""
        while self._waiting is not None and self._waiting.pts * self._waiting.time_base <= until:
            self._container.mux(self._waiting)
            self._waiting = next(self._sound, None)

    def _sound_packets(self, start: float) -> Iterator[Any]:
        if self._source is None or not self._source.streams.audio:
            return
        source = self._source.streams.audio[0]
        try:
            copied = self._container.add_stream_from_template(source)
        except (ValueError, self._av.error.FFmpegError):  # a codec that MP4 does not hold
            return
        left_out = round(start / source.time_base)
        if left_out:
            with suppress(self._av.error.FFmpegError):  # then it is read from its beginning
                self._source.seek(left_out, stream=source)
        for packet in self._source.demux(source):
            # The last packet is empty.
            if packet.pts is None or packet.dts is None or packet.pts < left_out:
                continue
            packet.pts, packet.dts = packet.pts - left_out, packet.dts - left_out
            packet.stream = copied
            yield packet


def _matrix(code: int) -> dict[str, Any]:
    """What PyAV is told of a frame's matrix: its version 16 would take any for BT.601, unless two of them are named."""
    return {} if code in _NO_MATRIX else {"src_colorspace": code, "dst_colorspace": _BT601}


def _opened(source: Path | BinaryIO) -> Any:
    """A file or open content, from its beginning, as PyAV's container."""
    if isinstance(source, Path):
        return import_av().open(_url(source))
    source.seek(0)
    return import_av().open(source)


def _url(path: Path) -> str:
    """A file's name as FFmpeg takes it, to which ``take: 2.mp4`` alone is a file of a protocol called take."""
    return f"file:{path}"


def import_av() -> ModuleType:
    """PyAV; raises ModuleNotFoundError with how to install it."""
    try:
        import av
    except ModuleNotFoundError:
        raise ModuleNotFoundError("Videos need PyAV: pip install av.") from None
    return av
