"""The header of an OpenEXR file, read here so that its claims are checked before the library allocates for them.

Layout: openexr.com/en/latest/OpenEXRFileLayout.html. Only what is needed for the check is kept.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..pixel_limit import MAX_PIXELS, check_pixels

#: What every file begins with.
MAGIC = b"\x76\x2f\x31\x01"
_TILED, _DEEP, _MULTI_PART = 0x200, 0x800, 0x1000

# Scan lines in a chunk by the number of the compression: none, RLE, ZIPS, ZIP, PIZ, PXR24, B44, B44A, DWAA, DWAB,
# HTJ2K256, HTJ2K32, ZSTD.
_LINES = (1, 1, 1, 16, 32, 16, 32, 32, 32, 256, 256, 32, 16)
_TYPE_BYTES = {0: 4, 1: 2, 2: 4}

# Channels of all parts together take this many bytes at most when they are unpacked.
_MAX_BYTES = 12 << 30
# Pictures with anything in them do not shrink by more than this; flat ones may, up to a size that does no harm.
_MAX_RATIO, _SMALL = 2_000, 256 << 20

# The whole picture around a region that was rendered alone: its pixels take nothing in the file.
_FRAME, _FRAME_PER_PIXEL = 1 << 24, 8192

_MAX_ATTRIBUTES, _MAX_PARTS, _MAX_CHANNELS = 4096, 1024, 4096

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class PartHeader:
    """``windows`` are (left, top, right, bottom), the last pixel included; ``channels`` has the bytes of a value."""

    data_window: Window
    display_window: Window
    channels: dict[str, int]
    chunks: int
    deep: bool


def check_header(path: Path) -> list[PartHeader]:
    """Read the headers of all parts and hold what they claim against the size of the file.

    Raises:
        ValueError: in one sentence: not OpenEXR, a damaged header, windows that the file cannot fill, cut short, deep.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start[:4] != MAGIC or len(start) < 8:
            raise ValueError(f"{path} is not an OpenEXR file.")
        flags = struct.unpack("<I", start[4:])[0]
        try:
            parts = _read_parts(file, flags)
        except (struct.error, UnicodeDecodeError, KeyError, IndexError, OverflowError):
            raise ValueError(f"{path} is not a readable OpenEXR file: its header is damaged or cut short.") from None
        if any(part.deep for part in parts):
            raise ValueError(f"{path} holds deep data: flatten it to one depth per pixel.")
        for part in parts:
            _check_claims(path, part, size)
        total = sum(_unpacked_bytes(part) for part in parts)
        if total > _MAX_BYTES or total > max(_SMALL, size * _MAX_RATIO):
            raise ValueError(f"{path} claims {total:,} bytes of pixels, which a file of {size:,} bytes cannot hold.")
        _check_chunks(path, file, sum(part.chunks for part in parts), size)
    return parts


def _read_parts(file: BinaryIO, flags: int) -> list[PartHeader]:
    parts: list[PartHeader] = []
    while True:
        attributes = _read_attributes(file)
        if not attributes and parts:
            return parts
        parts.append(_part(attributes, flags))
        if not flags & _MULTI_PART:
            return parts
        if len(parts) > _MAX_PARTS:
            raise IndexError


def _read_attributes(file: BinaryIO) -> dict[str, bytes]:
    """Contents of the attributes of one part by name; a zero byte ends them."""
    found: dict[str, bytes] = {}
    while name := _read_name(file):
        _read_name(file)  # its type
        (length,) = struct.unpack("<i", file.read(4))
        if length < 0 or len(found) > _MAX_ATTRIBUTES:
            raise IndexError
        end = file.tell() + length
        content = file.read(min(length, 1 << 20))
        if file.seek(0, os.SEEK_END) < end:
            raise IndexError
        file.seek(end)
        found[name] = content
    return found


def _read_name(file: BinaryIO) -> str:
    text = bytearray()
    while (byte := file.read(1)) != b"\0":
        text += byte
        if not byte or len(text) > 255:
            raise IndexError
    return text.decode("utf-8", errors="replace")


def _part(attributes: dict[str, bytes], flags: int) -> PartHeader:
    data: Window = struct.unpack("<4i", attributes["dataWindow"])
    display: Window = struct.unpack("<4i", attributes["displayWindow"])
    kind = attributes.get("type", b"").decode("ascii", errors="replace")
    width, height = data[2] - data[0] + 1, data[3] - data[1] + 1
    if "tile" in kind or (not kind and flags & _TILED):
        chunks = _tiles(width, height, attributes["tiles"])
    else:
        compression = attributes["compression"][0]
        chunks = math.ceil(height / (_LINES[compression] if compression < len(_LINES) else 1))
    return PartHeader(data, display, _channels(attributes["channels"]), chunks, "deep" in kind or bool(flags & _DEEP))


def _channels(content: bytes) -> dict[str, int]:
    found: dict[str, int] = {}
    at = 0
    while content[at]:
        end = content.find(b"\0", at)
        if end < 0 or len(found) > _MAX_CHANNELS:
            raise IndexError
        kind, _, across, down = struct.unpack_from("<iiii", content, end + 1)
        if across < 1 or down < 1:
            raise IndexError
        found[content[at:end].decode("utf-8", errors="replace")] = _TYPE_BYTES[kind]
        at = end + 17
    return found


def _tiles(width: int, height: int, content: bytes) -> int:
    """Number of the tiles of all levels."""
    across, down, mode = struct.unpack("<IIB", content)
    kind, rounds = mode & 15, mode >> 4
    # The library never returns from a file of an unknown mode.
    if not across or not down or across * down > MAX_PIXELS or kind > 2 or rounds > 1:
        raise IndexError
    rounding = math.ceil if rounds else math.floor

    def levels(side: int) -> list[int]:
        count = int(rounding(math.log2(max(1, side)))) + 1
        return [max(1, rounding(side / 2**level)) for level in range(count)]

    if kind == 0:
        sizes = [(width, height)]
    elif kind == 1:
        count = len(levels(max(width, height)))
        sizes = [(max(1, rounding(width / 2**k)), max(1, rounding(height / 2**k))) for k in range(count)]
    else:
        sizes = [(x, y) for x in levels(width) for y in levels(height)]
    return sum(math.ceil(x / across) * math.ceil(y / down) for x, y in sizes)


def _unpacked_bytes(part: PartHeader) -> int:
    left, top, right, bottom = part.data_window
    return (right - left + 1) * (bottom - top + 1) * sum(part.channels.values())


def _check_claims(path: Path, part: PartHeader, size: int) -> None:
    for left, top, right, bottom in (part.data_window, part.display_window):
        width, height = right - left + 1, bottom - top + 1
        if width < 1 or height < 1:
            raise ValueError(f"{path} has an image window of {width}x{height} pixels: its header is damaged.")
        check_pixels(path, width, height)
    data, display = (
        (right - left + 1) * (bottom - top + 1) for left, top, right, bottom in (part.data_window, part.display_window)
    )
    if display > _FRAME + _FRAME_PER_PIXEL * data:
        raise ValueError(f"{path} claims a picture of {display:,} pixels around {data:,} of its own: it is damaged.")
    if part.chunks * 8 > size:
        raise ValueError(f"{path} claims {part.chunks:,} blocks of pixels, more than its {size:,} bytes can hold.")


def _check_chunks(path: Path, file: BinaryIO, chunks: int, size: int) -> None:
    """The table of offsets after the headers; a renderer that was stopped leaves zeros in it."""
    table = file.read(8 * chunks)
    start = file.tell()
    if len(table) == 8 * chunks:
        offsets = struct.unpack(f"<{chunks}Q", table)
        missing = sum(not start <= offset <= size - 8 for offset in offsets)
    else:
        missing = chunks
    if missing:
        raise ValueError(
            f"{path} is cut short or was never finished: {missing} of its {chunks} blocks of pixels are not in it; "
            "copy or render it again."
        )
