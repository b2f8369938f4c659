"""Small text files from anywhere, such as configurations: read whole, so not longer than they can reasonably be."""

from __future__ import annotations

from pathlib import Path

#: More than any configuration, index of shards or metadata holds.
TEXT_BYTES = 1 << 24


class LongTextError(ValueError):
    """A text file that is longer than it can reasonably be."""


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        OSError: it cannot be read.
        LongTextError: it is longer than `TEXT_BYTES`.
        UnicodeDecodeError: it is not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(TEXT_BYTES + 1)
    if len(content) > TEXT_BYTES:
        raise LongTextError(f"it is larger than {TEXT_BYTES:,} bytes")
    return content.decode("utf-8")
