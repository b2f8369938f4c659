"""A clip of any kind, opened with the reader that decodes it."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from .animation import AnimationReader, is_animation
from .reader import VideoReader


def open_clip(source: Path | BinaryIO, *, start: float = 0.0, duration: float = 0.0) -> VideoReader | AnimationReader:
    """The pictures of a clip; arguments and errors as of `VideoReader`."""
    if isinstance(source, Path) and source.is_file() and is_animation(source):
        return AnimationReader(source, start=start, duration=duration)
    return VideoReader(source, start=start, duration=duration)
