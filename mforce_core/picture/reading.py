"""Read any picture as 8-bit RGB."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .files import open_image


@dataclass(frozen=True)
class Picture:
    """An upright RGB picture and the sentences about what was changed while reading it."""

    image: Image.Image
    notes: tuple[str, ...]


def read_picture(path: Path) -> Picture:
    """Read a picture file of any mode as RGB; see `as_rgb`.

    Raises:
        ValueError: it is not a picture that can be read.
    """
    return as_rgb(open_image(path), path.name)


def as_rgb(image: Image.Image, name: str) -> Picture:
    """A picture of any mode as RGB, turned by the camera's orientation, transparency put on white.

    Raises:
        ValueError: negative or non-finite values.
    """
    notes = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"{name} has {frames} frames; only the first is used.")
    # Turns by the camera's orientation tag, where there is one.
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _wide_gray(image, name)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        if np.asarray(layers.getchannel("A")).min() < 255:
            notes.append(f"{name} has transparent pixels; they were put on white.")
        white = Image.new("RGBA", layers.size, "white")
        image = Image.alpha_composite(white, layers)
    return Picture(image.convert("RGB"), tuple(notes))


def _wide_gray(image: Image.Image, name: str) -> Image.Image:
    """8-bit gray of a 16-bit or floating-point picture; Pillow's own conversion clips at 255."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"{name} holds negative or non-finite values: give an ordinary picture.")
    white = 1.0 if image.mode == "F" and values.max() <= 1 else 65535.0
    return Image.fromarray((np.clip(values / white, 0, 1) * 255).round().astype(np.uint8), "L")
