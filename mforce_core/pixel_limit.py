"""How many pixels a picture or a depth map may have."""

from __future__ import annotations

from pathlib import Path

#: Larger ones are refused: 16384 x 8192.
MAX_PIXELS = 1 << 27


def check_pixels(path: Path, width: int, height: int) -> None:
    """Raise ValueError for a file with more than `MAX_PIXELS` pixels."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"{path} claims {width}x{height} pixels: more than {MAX_PIXELS:,} are not read; shrink it.")
