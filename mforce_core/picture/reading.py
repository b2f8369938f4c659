"""Read any picture as 8-bit sRGB."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .exr_pictures import is_exr, read_exr_picture
from .files import frame_count, full_size, is_deep_gray, open_image
from .profiles import in_srgb


@dataclass(frozen=True)
class Picture:
    """An upright RGB picture and the sentences about what was changed while reading it."""

    image: Image.Image
    notes: tuple[str, ...]


def read_picture(path: Path) -> Picture:
    """Read a picture file of any mode as RGB; see `as_rgb`, and `read_exr_picture` for OpenEXR.

    Raises:
        ValueError: it is not a picture that can be read.
        ModuleNotFoundError: OpenEXR is not installed, for such a file.
    """
    if is_exr(path):
        return Picture(*read_exr_picture(path))
    return as_rgb(open_image(path), path.name)


def as_rgb(image: Image.Image, name: str) -> Picture:
    """A picture of any mode as sRGB, turned by the camera's orientation, transparency put on white.

    Raises:
        ValueError: negative or non-finite values.
    """
    notes: list[str] = []
    if full_size(image) != image.size:
        before, after = ("x".join(map(str, size)) for size in (full_size(image), image.size))
        notes.append(f"{name} has {before} pixels; it was shrunk to {after} while it was decoded.")
    picture = upright_rgb(image, name, notes)
    count = frame_count(image)
    if count > 1:
        notes.append(f"{name} has {count} frames; only the first is used.")
    return Picture(picture, tuple(notes))


def upright_rgb(image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    """The picture that an image of Pillow is at, as of `as_rgb`; adds what was changed to ``notes``.

    Raises:
        ValueError: negative or non-finite values.
    """
    image = upright(image, name, notes)
    if is_deep_gray(image):
        image = _wide_gray(image, name, notes)
    image = in_srgb(image, name, notes)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        if np.asarray(layers.getchannel("A")).min() < 255:
            notes.append(f"{name} has transparent pixels; they were put on white.")
        white = Image.new("RGBA", layers.size, "white")
        image = Image.alpha_composite(white, layers)
    return image.convert("RGB")


def upright(image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    """An image turned by the camera's orientation tag, where there is one; adds what is amiss with it to ``notes``."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # tags may be damaged where the picture is not
        notes.append(f"{name} has tags that cannot be read ({type(error).__name__}).")
        return image


def _wide_gray(image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    """8-bit gray of a 16-bit or floating-point picture; Pillow's own conversion clips at 255."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"{name} holds negative or non-finite values: give an ordinary picture.")
    white = 65535.0
    if image.mode == "F":
        # A float picture does not say its white. One in 0..255 is not dark almost everywhere; one in 0..1 may have
        # highlights above 1.
        top = float(values.max())
        usual = next((white for white in (255.0, 65535.0) if top <= white), top)
        white = 1.0 if top <= 1 or np.percentile(values, 99) <= 2 else usual
        notes.append(f"{name} holds floats up to {top:.4g}; {white:g} was taken as white.")
    gray = Image.fromarray((np.clip(values / white, 0, 1) * 255).round().astype(np.uint8), "L")
    clear = values == image.info.get("transparency", np.nan)  # a PNG may name one level that is transparent
    if clear.any():
        gray.putalpha(Image.fromarray(~clear))
    return gray
