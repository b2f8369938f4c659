"""HEIC pictures, which phones take, by pillow-heif, which few programs bring."""

from __future__ import annotations

from pathlib import Path

from PIL.Image import Image

from ..optional import need

#: What files with HEVC inside call themselves (ISO/IEC 23008-12).
_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
#: Of their first box, which no program makes long.
_READ = 256


def is_heic(path: Path) -> bool:
    """Whether the file begins as a HEIC picture, by any name; AVIF, which begins alike, is Pillow's."""
    with path.open("rb") as file:
        start = file.read(_READ)
    if start[4:8] != b"ftyp":
        return False
    length = min(len(start), int.from_bytes(start[:4], "big"))
    brands = start[8:12], *(start[at : at + 4] for at in range(16, length, 4))
    return not _BRANDS.isdisjoint(brands)


def open_heic(path: Path) -> Image:
    """The picture, not decoded yet; its own turns are done then.

    Raises:
        ModuleNotFoundError: in one sentence, without pillow-heif.
        SyntaxError: it is damaged, as of Pillow's own formats.
    """
    return need("pillow_heif", "A HEIC picture", "pillow-heif").HeifImageFile(path)
