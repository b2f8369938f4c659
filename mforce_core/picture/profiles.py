"""Pictures with a color profile (ICC.1) as sRGB, the colors that the model knows.

Phones write Display P3, cameras Adobe RGB, and layouts for print have CMYK.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

from ..reasons import reason_of

#: What a profile's colors are called, and the mode in which Pillow holds them.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
#: A profile that moves no color by more than this many of 255 levels is sRGB by another program.
_ROUNDING = 2


def in_srgb(image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    """An opened image of 8-bit colors as sRGB, with its transparency; adds to ``notes`` what was done.

    Colors are converted relative to white, with black staying black. A picture without a profile, with one that is
    sRGB, or with one of another kind than its colors is returned as it is.
    """
    content = image.info.get("icc_profile")
    if not content:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(content))
        mode = _MODES.get(profile.profile.xcolor_space.strip())
        if mode is None or not _fits(image, mode):
            return image
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode != "CMYK" and _changes_nothing(transform, mode):
            return image
        shown = transform.apply(image.convert(mode))
    except (ImageCms.PyCMSError, ImportError, OSError, ValueError) as error:
        notes.append(
            f"{name} has a color profile that cannot be used ({reason_of(error)}); its colors were taken as sRGB."
        )
        return image
    shown.info.clear()
    if image.has_transparency_data:
        shown.putalpha(image.convert("RGBA").getchannel("A"))
    notes.append(f"{name} has the colors of {_called(profile)}; they were converted to sRGB.")
    return shown


def _fits(image: Image.Image, mode: str) -> bool:
    """Whether an image has colors of a profile's kind, beside transparency or in a palette."""
    return image.mode in {"RGB": ("RGB", "RGBA", "P", "PA"), "L": ("L", "LA"), "CMYK": ("CMYK",)}[mode]


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether the profile is sRGB to rounding, so that pictures are better left as they are."""
    probe = _probe(mode)
    changes = np.asarray(transform.apply(probe), np.int16) - np.asarray(probe.convert("RGB"), np.int16)
    return int(np.abs(changes).max()) <= _ROUNDING


@cache
def _probe(mode: str) -> Image.Image:
    """Every 17th level of gray, or of red, green and blue in every combination."""
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    if mode == "L":
        return Image.fromarray(levels[None])
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(len(levels), -1, 3))


def _called(profile: ImageCms.ImageCmsProfile) -> str:
    """The profile's own name, of which a damaged or hostile one may have much."""
    try:
        name = profile.profile.profile_description or ""
    except ValueError:  # bytes that are no text
        name = ""
    name = "".join(character for character in name if character.isprintable())[:60].strip()
    return f"the profile {name!r}" if name else "a profile without a name"
