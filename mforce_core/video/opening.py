"""Video files and their open content, opened with PyAV."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

#: How long browsers show a picture of an animated PNG that does not say it, as pictures a second.
_OPTIONS = {"default_fps": "10"}


def opened(source: Path | BinaryIO) -> Any:
    """A file or open content, from its beginning, as PyAV's container."""
    if not isinstance(source, Path):
        source.seek(0)
    # Titles and names of makers come in the letters of any country.
    return import_av().open(
        url(source) if isinstance(source, Path) else source, options=_OPTIONS, metadata_errors="replace"
    )


def url(path: Path) -> str:
    """A file's name as FFmpeg takes it, to which ``take: 2.mp4`` alone is a file of a protocol called take."""
    return f"file:{path}"


def name_of(source: Path | BinaryIO) -> str:
    """What sentences call a source."""
    return source.name if isinstance(source, Path) else "The video"


def import_av() -> ModuleType:
    """PyAV; raises ModuleNotFoundError with how to install it."""
    try:
        import av
    except ModuleNotFoundError:
        raise ModuleNotFoundError("Videos need PyAV: pip install av.") from None
    return av
