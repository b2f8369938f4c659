"""Decoded frames as a player shows them: upright, in square pixels, in the colors of an ordinary screen."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from .hdr import BT2020, HLG, PQ, TO_BT709, to_sdr
from .transparency import has_alpha, on_white
from .upright import upright

#: Matrices of colors, as PyAV calls them.
_BT601 = "ITU601"
#: The codes of RGB, of files that do not say, and of what FFmpeg turns into RGB.
_RGB, _BT709, _UNSAID, _READ = 0, 1, 2, (1, 4, 5, 6, 7, BT2020)
#: BT.2020 with constant luminance, which has the factors of the usual one, and is often a wrong name for it.
_CONSTANT = 10
_NAMES = {PQ: "PQ", HLG: "HLG"}
_TRANSPARENT = "has transparent pixels; they were put on white."
#: Width of a pixel by its height.
_SQUARE = Fraction(1)
#: Pixels that are less than this share off being square come of rounding, and from this ratio on of a damaged header.
_NEARLY, _NEVER = Fraction(1, 100), 5


class AsShown:
    """What a player shows of a stream's frames.

    Args:
        stream: of PyAV.

    Attributes:
        notes: sentences on what is changed, without a subject; that on transparency comes with the first such frame.
    """

    def __init__(self, stream: Any) -> None:
        codec = stream.codec_context
        self._transfer, self._primaries = int(codec.color_trc), int(codec.color_primaries)
        self._ratio: Fraction = _pixel_ratio(stream.sample_aspect_ratio)
        # A pixel of 32 bits in AVI is three colors and a byte without use, which some programs take for transparency.
        self._may_be_unused = stream.container.format.name == "avi"
        hdr = self._transfer in _NAMES
        if hdr and self._primaries == _UNSAID:
            self._primaries = BT2020
        self._wide = hdr or self._primaries in TO_BT709
        self._usual = BT2020 if hdr or self._primaries == BT2020 else _BT709 if self._wide else None
        self.notes: list[str] = []
        if hdr:
            self.notes.append(
                f"is HDR ({_NAMES[self._transfer]}): its pictures are read as an ordinary screen shows them."
            )
        if codec.colorspace not in (_RGB, _UNSAID, _CONSTANT, *_READ):
            self.notes.append(
                f"has colors of a kind that FFmpeg does not read (matrix {int(codec.colorspace)} of ITU-T H.273): they"
                " are off. Convert it to BT.709 first."
            )
        if self._ratio != _SQUARE:
            stored, shown = (codec.width, codec.height), self._size(codec.width, codec.height)
            self.notes.append(
                "has pixels that are not square: its pictures of {}x{} are read as {}x{}, as players show them.".format(
                    *stored, *shown
                )
            )

    def __call__(self, frame: Any) -> np.ndarray:
        """The picture (H, W, 3) uint8 of a frame."""
        width, height = self._size(frame.width, frame.height)
        colors = _matrix(frame.colorspace, self._usual) | {"src_color_range": frame.color_range}
        if self._ratio != _SQUARE:
            colors |= {"width": width, "height": height, "interpolation": "BICUBIC"}
        alpha = has_alpha(frame.format)
        # FFmpeg goes from RGB of 8 bits to 16 by way of Y'CbCr, which makes black 3 of 255.
        plain = not self._wide or (frame.format.is_rgb and frame.format.components[0].bits == 8)
        form = ("rgba" if alpha else "rgb24") if plain else "rgba64le" if alpha else "rgb48le"
        levels = frame.to_ndarray(format=form, **colors)
        picture = levels[..., :3]
        if self._wide:
            codes = picture * np.uint16(257) if plain else picture
            picture = to_sdr(codes, self._transfer, self._primaries)
        opacity = levels[..., 3] if alpha else None
        if opacity is not None and self._may_be_unused and not opacity.any():
            opacity = None
        if opacity is not None and opacity.min() < np.iinfo(levels.dtype).max:
            picture = on_white(picture, opacity)
            if _TRANSPARENT not in self.notes:
                self.notes.append(_TRANSPARENT)
        return np.ascontiguousarray(upright(picture, frame))

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """In square pixels: one side grows and none shrinks, as HTML has it for its video element."""
        return round(width * max(self._ratio, _SQUARE)), round(height / min(self._ratio, _SQUARE))


def _pixel_ratio(said: Fraction | None) -> Fraction:
    """Width of a pixel by its height, as a file says it."""
    if not said or abs(said - 1) < _NEARLY or not 1 / _NEVER <= said <= _NEVER:
        return _SQUARE
    return said


def _matrix(code: int, usual: int | None) -> dict[str, Any]:
    """What PyAV is told of a frame's matrix: its version 16 would take any for BT.601, unless two of them are named.

    ``usual``: the matrix of files with such colors, for one that says none; None leaves it to FFmpeg.
    """
    if code == _RGB or (code == _UNSAID and usual is None):
        return {}
    known = code if code in _READ else BT2020 if code == _CONSTANT else usual or _BT601
    return {"src_colorspace": known, "dst_colorspace": _BT601}
