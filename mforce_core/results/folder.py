"""A folder that appears complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: A folder with this file was written by mforce and may be replaced by it.
MARKER = "metadata.json"


def default_output(kind: str) -> Path:
    """The first free ``mforce_out/<kind>-<number>``."""
    number = 1
    while (path := Path("mforce_out") / f"{kind}-{number:03d}").exists():
        number += 1
    return path


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output folder that must not be written over.

    Raises:
        ValueError: the path is a file, the current folder, or holds files and may not be replaced.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise ValueError(f"The output {path} is a file or a link: name a folder with `output`.")
    if not path.exists():
        return
    if path.resolve() == Path.cwd():
        raise ValueError("The output is the current folder: name a new folder inside it with `output`.")
    if not any(path.iterdir()):
        return
    if not overwrite:
        raise ValueError(f"The output folder {path} already holds files: name another, or add `overwrite`.")
    if not any(path.glob(MARKER)) and not any(path.glob(f"*/{MARKER}")):
        raise ValueError(f"The folder {path} was not written by mforce and is not overwritten: name another.")


@contextmanager
def output_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that becomes ``path`` when the block ends without a fault.

    With ``overwrite``, a folder that mforce wrote is replaced; it stays untouched until then.

    Raises:
        ValueError: see `check_output`; or the folder cannot be written.
    """
    check_output(path, overwrite=overwrite)
    created = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.part-", dir=path.parent))
        work.chmod(0o777 & ~_umask())
    except OSError as error:
        _remove_empty(created)
        raise ValueError(
            f"The output folder {path} cannot be written ({error.strerror}): name another with `output`."
        ) from error
    try:
        yield work
        _replace(path, work)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        _remove_empty(created)
        raise


def _replace(path: Path, work: Path) -> None:
    if not path.exists():
        work.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent)) / "folder"
    path.rename(old)
    try:
        work.rename(path)
    except OSError:
        old.rename(path)
        old.parent.rmdir()
        raise
    shutil.rmtree(old.parent, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    """Take back the parents that were made, innermost first, where nothing else has come into them."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
