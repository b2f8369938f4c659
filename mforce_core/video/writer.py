"""H.264 videos, written one picture after the other with PyAV, with the sound of another file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from .opening import import_av, url
from .sound import Sound
from .timing import TimeStamps

#: Of H.264; 16 is hardly to be told from the source.
_QUALITY = "16"
#: BT.709 in limited range, in the codes of ITU-T H.273 and of FFmpeg, by the names of an encoder's properties.
_COLOR_TAGS = {"color_primaries": 1, "color_trc": 1, "colorspace": 1, "color_range": 1}
#: The same matrix, as PyAV calls it.
_BT709 = "ITU709"


class VideoWriter:
    """Writes an H.264 file; pictures of an odd size get one more row or column.

    Args:
        path: of the file, which is whole after the ``with`` block ends.
        rate: frames a second.
        sound_of: a video whose sound goes along.
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
        self._av, self._container = av, av.open(url(path), "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": _QUALITY}
        for name, code in _COLOR_TAGS.items():
            setattr(self._stream.codec_context, name, code)
        if times is not None:
            self._stream.codec_context.time_base = times.unit
        self._sound = None if sound_of is None else Sound(sound_of, self._container, sound_start)
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
        if self._sound is not None:  # so that pictures and sound lie beside each other in the file
            self._sound.write(self._shown_until)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._written:
            self._finish()
        if self._sound is not None:
            self._sound.close()
        self._container.close()

    @property
    def silent(self) -> str | None:
        """A sentence on a sound that cannot go along."""
        return None if self._sound is None else self._sound.problem

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
            packets[-1].duration = ends - first - decoded
            shown_last.duration = ends - shown_last.pts  # which is later where one picture is the last in both orders
        self._container.mux(packets)
