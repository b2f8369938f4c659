"""The sound of a video in another MP4 file: as it is where players of MP4 know its kind, else as AAC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .opening import import_av, name_of, opened

#: Kinds of sound that players of MP4 know.
_KNOWN = ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus")
#: Samples a second that AAC has, and those that take the place of others.
_RATES, _USUAL_RATE = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000), 48000
#: Places of loudspeakers by their number; other sound becomes stereo.
_LAYOUTS, _USUAL_LAYOUT = {1: "mono", 2: "stereo", 6: "5.1"}, "stereo"
#: Of samples, as AAC takes them.
_FORMAT = "fltp"
#: Seconds by which sound may be late or early before it is put in its place.
_OFF = 0.04
#: Bits a second of a channel in AAC.
_BITS = 96_000


class Sound:
    """Writes the sound of a video into an open container, part by part.

    Args:
        source: the video.
        container: of PyAV, to which nothing is written yet.
        start: seconds of the sound that are left out.

    Attributes:
        problem: a sentence on a sound that cannot go along.
    """

    def __init__(self, source: Path | BinaryIO, container: Any, start: float) -> None:
        self._av = import_av()
        self._source, self._container, self._start = opened(source), container, start
        self.problem: str | None = None
        self._packets = self._found(name_of(source))
        self._waiting: Any = next(self._packets, None)

    def write(self, until: float) -> None:
        """Write the sound up to a time in seconds."""
        while self._waiting is not None and self._waiting.pts * self._waiting.time_base <= until:
            self._container.mux(self._waiting)
            self._waiting = next(self._packets, None)

    def close(self) -> None:
        """Close the video."""
        self._source.close()

    def _found(self, name: str) -> Iterator[Any]:
        """The packets to write, of the first sound that can be decoded."""
        streams = self._source.streams.audio
        stream = next((stream for stream in streams if stream.codec_context is not None), None)
        if stream is None:
            if streams:
                self.problem = f"{name} has sound of a kind that PyAV does not read: it is left out."
            return iter(())
        codec = stream.codec_context
        if codec.codec.canonical_name in _KNOWN and codec.sample_rate:
            with suppress(ValueError, self._av.error.FFmpegError):
                return self._copied(stream, self._container.add_stream_from_template(stream))
        rate = codec.sample_rate if codec.sample_rate in _RATES else _USUAL_RATE
        layout = _LAYOUTS.get(codec.channels, _USUAL_LAYOUT)
        to = self._container.add_stream("aac", rate=rate, layout=layout)
        to.bit_rate = _BITS * to.codec_context.channels
        return self._encoded(stream, to, rate, layout)

    def _copied(self, stream: Any, to: Any) -> Iterator[Any]:
        left_out = round(self._start / stream.time_base)
        for packet in self._demuxed(stream):
            # The last packet is empty.
            if packet.pts is None or packet.dts is None or packet.pts < left_out:
                continue
            packet.pts, packet.dts = packet.pts - left_out, packet.dts - left_out
            packet.stream = to
            yield packet

    def _encoded(self, stream: Any, to: Any, rate: int, layout: str) -> Iterator[Any]:
        written = 0
        for samples in self._in_time(self._resampled(stream, rate, layout), rate):
            frame = self._av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=_FORMAT, layout=layout)
            frame.sample_rate, frame.pts = rate, written
            written += samples.shape[1]
            yield from to.encode(frame)
        yield from to.encode(None)

    def _in_time(self, frames: Iterator[Any], rate: int) -> Iterator[np.ndarray]:
        """Samples (channels, N) from the start on, with silence where some are missing, so that the rest is in time."""
        written = 0
        for frame in frames:
            samples = frame.to_ndarray()
            ahead = 0 if frame.time is None else round((frame.time - self._start) * rate) - written
            if not written or abs(ahead) > _OFF * rate:
                for silence in range(0, ahead, rate):
                    yield np.zeros((len(samples), min(rate, ahead - silence)), samples.dtype)
                samples = samples[:, max(0, -ahead) :]
                written += max(0, ahead)
            if samples.size:
                written += samples.shape[1]
                yield samples

    def _resampled(self, stream: Any, rate: int, layout: str) -> Iterator[Any]:
        """Decoded sound, whose kind may change on its way."""
        kind: tuple[str, str, int] | None = None
        resampler: Any = None
        for frame in self._decoded(stream):
            found = frame.format.name, frame.layout.name, frame.sample_rate
            if found != kind:
                yield from () if resampler is None else filter(None, resampler.resample(None))
                kind, resampler = found, self._av.AudioResampler(_FORMAT, layout, rate)
            yield from resampler.resample(frame)
        yield from () if resampler is None else filter(None, resampler.resample(None))

    def _decoded(self, stream: Any) -> Iterator[Any]:
        for packet in self._demuxed(stream):
            with suppress(self._av.error.FFmpegError):  # a damaged part is silent
                yield from packet.decode()

    def _demuxed(self, stream: Any) -> Iterator[Any]:
        """Packets from the start on, up to the end or to where the file is damaged."""
        left_out = round(self._start / stream.time_base)
        if left_out:
            with suppress(self._av.error.FFmpegError):  # then it is read from its beginning
                self._source.seek(left_out, stream=stream)
        with suppress(self._av.error.FFmpegError):
            yield from self._source.demux(stream)
