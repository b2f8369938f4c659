"""The pictures that a command line names."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

#: Which Pillow does not know by itself, and of which each says so where the package for them is missing.
_OF_PHONES = {".heic", ".heif", ".hif"}


def is_several(source: str) -> bool:
    """Whether an argument is a folder or a pattern and not the path of one file."""
    return Path(source).is_dir() or (glob.has_magic(source) and not Path(source).exists())


def find_pictures(sources: Sequence[str]) -> dict[str, Path]:
    """The pictures that arguments name: files, folders (with what is below them) and patterns such as ``*.jpg``.

    Returns:
        Name of the result -> path. A file that does not exist is among them; reading it says so.

    Raises:
        ValueError: a folder without pictures, or a pattern that nothing matches.
    """
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for source in sources:
        for relative, path in _expand(source):
            if path.absolute() in seen:
                continue
            seen.add(path.absolute())
            stem = "-".join(relative.with_suffix("").parts)
            name, number = stem, 2
            while name in found:
                name, number = f"{stem}-{number}", number + 1
            found[name] = path
    return found


def _expand(source: str) -> Iterator[tuple[Path, Path]]:
    """Paths below the source, which name the results, and from here."""
    path = Path(source)
    if path.is_dir():
        Image.init()
        endings = {ending for ending, kind in Image.EXTENSION.items() if kind in Image.OPEN} | _OF_PHONES
        # Beside other pictures, EXR files are their depth.
        files = _in_folder(path, endings) or _in_folder(path, {".exr"})
        if not files:
            raise ValueError(f"There are no pictures in the folder {path}.")
        yield from ((file.relative_to(path), file) for file in files)
    elif is_several(source):
        files = [Path(match) for match in sorted(glob.glob(source, recursive=True)) if Path(match).is_file()]
        if not files:
            raise ValueError(f"No picture matches {source!r}.")
        yield from ((Path(file.name), file) for file in files)
    else:
        yield Path(path.name), path


def _in_folder(folder: Path, endings: set[str]) -> list[Path]:
    """Files with one of the endings below a folder, but those that are hidden."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in endings and file.is_file()]
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
