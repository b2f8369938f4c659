"""ScanNet v2 (Dai et al., arXiv 1702.04405): the ``.sens`` files that it is distributed as (ScanNet/SensReader).

A header with the sensors' intrinsics, then frame by frame a JPEG of the color camera and zlib-compressed 16-bit depth
in millimeters, planar, 0 without a measurement. The color camera sees a little more; its picture is resampled onto the
depth camera's pixels, both looking from one place (the extrinsics in these files are the identity).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from .frame import Frame, Listed, key_of, walk

_VERSION, _JPEG, _ZLIB = 4, 2, 1
#: Of one compressed picture.
_MOST_BYTES = 1 << 26


class _Header(NamedTuple):
    color: np.ndarray  # intrinsics (4, 4)
    depth: np.ndarray
    size: tuple[int, int]  # (height, width) of depth
    scale: float  # meters of a unit
    frames: int


def frames(root: Path) -> Iterator[Listed]:
    for path in walk(root, "*.sens"):
        with path.open("rb") as file:
            header = _read_header(file, path)
            for number in range(header.frames):
                file.seek(64 + 16, io.SEEK_CUR)  # pose, times
                color, depth = _unpack(file, "<QQ", path)
                place = file.tell()
                file.seek(color + depth, io.SEEK_CUR)
                key = f"{key_of(path, root)}/{number:06d}"
                yield Listed(key, partial(_read, path, header, place, color, depth))


def _read(path: Path, header: _Header, place: int, color: int, depth: int) -> Frame:
    if max(color, depth) > _MOST_BYTES:
        raise ValueError(f"{path} claims {max(color, depth):,} bytes for one picture")
    with path.open("rb") as file:
        file.seek(place)
        jpeg, packed = file.read(color), file.read(depth)
    height, width = header.size
    try:
        raw = zlib.decompressobj().decompress(packed, 2 * height * width)
    except zlib.error as error:
        raise ValueError(f"{path} holds depth that cannot be unpacked ({error})") from None
    if len(raw) != 2 * height * width:
        raise ValueError(f"{path} ends within a frame, or its depth is not {width}x{height}")
    meters = np.frombuffer(raw, "<u2").reshape(height, width).astype(np.float32) * np.float32(header.scale)
    with Image.open(io.BytesIO(jpeg)) as image:
        pixels = np.asarray(_onto_depth(image.convert("RGB"), header))
    return Frame(pixels, meters)


def _onto_depth(image: Image.Image, header: _Header) -> Image.Image:
    """The color picture at the depth camera's pixels."""
    height, width = header.size
    to_color = header.color[:3, :3] @ np.linalg.inv(header.depth[:3, :3])
    # Intrinsics count from the center of the first pixel, Pillow from its corner.
    (a, _, c), (_, e, f) = to_color[0], to_color[1]
    affine = (a, 0.0, c + 0.5 - a * 0.5, 0.0, e, f + 0.5 - e * 0.5)
    return image.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)


def _read_header(file: IO[bytes], path: Path) -> _Header:
    (version,) = _unpack(file, "<I", path)
    if version != _VERSION:
        raise ValueError(f"{path} is no .sens file of version {_VERSION}")
    (length,) = _unpack(file, "<Q", path)
    file.seek(min(length, 1 << 20), io.SEEK_CUR)  # the sensor's name
    color, _, depth, _ = (np.array(_unpack(file, "<16f", path)).reshape(4, 4) for _ in range(4))
    kinds = _unpack(file, "<ii", path)
    if kinds != (_JPEG, _ZLIB):
        raise ValueError(f"{path} holds pictures of the kinds {kinds}: JPEG and zlib are read")
    *_, width, height = _unpack(file, "<IIII", path)
    shift, count = _unpack(file, "<fQ", path)
    if not 0 < width * height <= 1 << 26 or not shift > 0:
        raise ValueError(f"{path} is damaged: its depth is {width}x{height} in units of 1/{shift} m")
    return _Header(color, depth, (height, width), 1 / shift, count)


def _unpack(file: IO[bytes], form: str, path: Path) -> tuple:
    content = file.read(struct.calcsize(form))
    if len(content) < struct.calcsize(form):
        raise ValueError(f"{path} is cut short")
    return struct.unpack(form, content)
