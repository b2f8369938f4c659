"""The files in a tar from anywhere, within bounds: what a header claims costs nothing until it is there.

A compressed tar of a few megabytes can hold a terabyte of zeros, a sparse member claims any size without a byte, and an
extended header is read whole by ``tarfile``. Here a member, and all that is read to find the next one, has a bound.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

#: Bytes of one file in a tar, and of the headers before it: a depth map of 8192 x 8192 as float32.
MEMBER_BYTES = 1 << 28
#: Bytes of the files of one sample.
SAMPLE_BYTES = 1 << 29

# WebDataset's own files that are no samples: "__tag__" and "__tag__/...".
_META = re.compile(r"__[^/]*__($|/)")
_COMPRESSIONS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZ": bz2.BZ2File,
    b"\xfd7": lzma.LZMAFile,
}


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    content: bytes


def tar_members(stream: IO[bytes]) -> Iterator[Member]:
    """The regular files of a tar, plain or compressed, in order; nothing is unpacked to disk.

    Raises:
        ValueError: damaged or cut short, or larger than the bounds.
        OSError: the stream cannot be read.
    """
    bounded = _Bounded(stream)
    key, held = "", 0
    try:
        # Reading a stream needs no more than `read`, whatever the type stubs ask for.
        with tarfile.open(fileobj=bounded, mode="r|") as tar:  # type: ignore[call-overload]
            for info in tar:
                if info.isreg() and not _META.match(info.name):
                    if info.size > MEMBER_BYTES:
                        raise ValueError(
                            f"{info.name[:100]} claims {info.size:,} bytes, and {MEMBER_BYTES:,} are allowed"
                        )
                    begins = _key(info.name)
                    held = (held if begins == key else 0) + info.size + tarfile.BLOCKSIZE
                    key = begins
                    if held > SAMPLE_BYTES:
                        raise ValueError(f"the files of {key[:100]} are more than {SAMPLE_BYTES:,} bytes")
                    file = tar.extractfile(info)
                    assert file is not None  # it is a regular file
                    yield Member(info.name, file.read())
                tar.members = []  # the list of all members, which is not needed, would grow with the tar
                bounded.restart()
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _key(name: str) -> str:
    """What the files of a sample have in common: the name up to the first dot after the folders."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


class _Bounded:
    """The plain bytes of a possibly compressed stream, of which ``MEMBER_BYTES`` twice may be read before a restart."""

    def __init__(self, stream: IO[bytes]) -> None:
        start = _Beginning(stream)
        unpacked = [unpack for magic, unpack in _COMPRESSIONS.items() if start.bytes.startswith(magic)]
        self._source = unpacked[0](start) if unpacked else start
        self._read = 0

    def read(self, size: int) -> bytes:
        content = self._source.read(size)
        self._read += len(content)
        if self._read > 2 * MEMBER_BYTES:
            raise ValueError(f"more than {2 * MEMBER_BYTES:,} bytes lie between two files of it")
        return content

    def restart(self) -> None:
        self._read = 0


class _Beginning:
    """A stream whose first bytes are known and still to be read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.bytes, self._stream = stream.read(2), stream
        self._waiting = self.bytes

    def read(self, size: int = -1) -> bytes:
        first, self._waiting = self._waiting, b""
        return first if first else self._stream.read(size)
