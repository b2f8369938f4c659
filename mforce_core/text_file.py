"""Small text files from anywhere, such as configurations: read whole, so not longer than they can reasonably be."""

from __future__ import annotations

from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

#: More than any configuration, index of shards or metadata holds.
TEXT_BYTES = 1 << 24


class LongTextError(ValueError):
    """A text file that is longer than it can reasonably be."""


def text_of(content: bytes) -> str:
    """The text of bytes in UTF-8, or in UTF-16 with the byte order mark that Windows programs begin a text with.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    return content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")


def read_text(path: Path) -> str:
    """The text of a file, as of `text_of`.

    Raises:
        OSError: it cannot be read.
        LongTextError: it is longer than `TEXT_BYTES`.
        UnicodeDecodeError: it is neither.
    """
    with path.open("rb") as file:
        content = file.read(TEXT_BYTES + 1)
    if len(content) > TEXT_BYTES:
        raise LongTextError(f"it is larger than {TEXT_BYTES:,} bytes")
    return text_of(content)
