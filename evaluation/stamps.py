"""Marks of files, by which a run that goes on notices that some have changed since they were measured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_LENGTH = 12


def stamp_of(values: Iterable[object]) -> str:
    """A short mark of values; another one of others."""
    return hashlib.sha256(repr(list(values)).encode()).hexdigest()[:_LENGTH]


def file_facts(path: Path) -> tuple[int, int]:
    """Size and time of the last change of a file; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def folder_stamp(path: Path) -> str:
    """A mark of a file or of all files below a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return stamp_of((file.as_posix(), *file_facts(file)) for file in files if not file.is_dir())
