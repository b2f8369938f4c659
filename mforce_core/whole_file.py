"""A file that appears complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a hidden name beside ``path``, to be written to; it becomes ``path`` when the block ends without a fault.

    A full disk or an interruption leaves nothing. A process that is killed leaves at most the hidden file, never half a
    file under its final name. The hidden name has the same suffix, by which libraries choose a format.
    """
    partial = path.with_name(f".{uuid4().hex[:12]}.part{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
