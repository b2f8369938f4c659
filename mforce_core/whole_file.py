"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def whole_file(path: Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield a hidden name beside ``path``, to be written to; it becomes ``path`` when the block ends without a fault.

    A full disk or an interruption leaves nothing. A process that is killed leaves at most the hidden file, never half a
    file under its final name. The hidden name has the same suffix, by which libraries choose a format, or ``suffix``
    where others look for files by theirs.
    """
    partial = _hidden(path, path.suffix if suffix is None else suffix)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """The same for a folder, which is made and is not there yet; its files are written into the hidden one."""
    partial = _hidden(path, path.suffix)
    partial.mkdir(parents=True)
    try:
        yield partial
        os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _hidden(path: Path, suffix: str) -> Path:
    return path.with_name(f".{uuid4().hex[:12]}.part{suffix}")
