"""Shards of WebDataset that appear complete or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...mforce_core.whole_file import whole_file
from .extras import need


@contextmanager
def whole_tar(path: Path) -> Iterator[Any]:
    """Yield a WebDataset ``TarWriter``; the tar becomes ``path`` when the block ends without a fault.

    The same samples give the same bytes: no time of writing is kept.
    """
    writer = need("webdataset", "Writing .tar shards").TarWriter
    # Without its suffix, by which other runs would take the unfinished tar for a shard.
    with (
        whole_file(path, suffix="") as partial,
        partial.open("wb") as file,
        writer(file, encoder=False, mtime=0) as tar,
    ):
        yield tar
