"""Opening image files that anyone may have made."""

from __future__ import annotations

import warnings
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from ..file_kinds import what_is
from ..reasons import reason_of
from .heic import is_heic, open_heic

#: Pictures with more pixels than this are refused: 16384 x 8192. A JPEG may have four times as many, since its decoder
#: can shrink.
MAX_PIXELS = 1 << 27

#: Larger JPEG pictures are shrunk by 2, 4 or 8 while they are decoded.
SHRINK_ABOVE = 1 << 26

# No format packs more pixels into a byte; a header that claims more is not believed.
_PIXELS_PER_BYTE = 10_000

# Camera tags of pictures that were taken with the camera on its side.
_LYING = (5, 6, 7, 8)

# Pillow gives these to other programs (Ghostscript) or to the system.
_NOT_OPENED = frozenset({"EPS", "WMF"})


def open_image(path: Path) -> Image.Image:
    """Open and fully decode an image file; `full_size` tells the size of one that was shrunk.

    Raises:
        ValueError: in one sentence why that is not possible.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the path of one image file.")
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the path of an image file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = open_heic(path) if is_heic(path) else Image.open(path, formats=_formats())
        if isinstance(image, ImageFile.ImageFile) and image.format == "TIFF":
            # Pillow would map the pixels of a file with a name into memory, those of a picture that lies with its sides
            # exchanged.
            image.filename = ""
        width, height = image.size
        pixels, limit = width * height, MAX_PIXELS * 4 if image.format == "JPEG" else MAX_PIXELS
        if pixels > limit:
            raise ValueError(f"{path} has {width}x{height} pixels, too many to be opened safely: shrink it first.")
        if pixels > _PIXELS_PER_BYTE * (path.stat().st_size + 1024):
            raise ValueError(f"{path} claims {width}x{height} pixels, more than the file can hold: it is damaged.")
        if pixels > SHRINK_ABOVE and image.format == "JPEG":
            _draft(image)
        image.load()
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: {error}") from None
    except UnidentifiedImageError:
        kind = what_is(path)
        if kind is not None and kind.endswith(" picture"):
            raise ValueError(
                f"{path} is {kind} of a kind that Pillow does not read, or damaged: save it as PNG; depth as 16-bit"
                " PNG, .npy, or TIFF with one channel of 32-bit floats."
            ) from None
        if kind is not None:
            raise ValueError(f"{path} is not an image that can be read but {kind}.") from None
        raise ValueError(f"{path} is not an image that Pillow can read: save it as PNG or JPEG.") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{path} has too many pixels to be opened safely: shrink it first.") from None
    except MemoryError:
        raise ValueError(f"{path} needs more memory than there is: shrink it first.") from None
    except Exception as error:
        # Pillow's decoders pass on what damaged data does to them: OSError, SyntaxError, struct.error and many more.
        if str(error).startswith(str(path)):
            raise
        raise ValueError(
            f"{path} cannot be decoded ({reason_of(error)}): the file may be cut short; copy it again."
        ) from None
    return image


def upright_size(content: bytes) -> tuple[int, int]:
    """Height and width of a picture, held as its camera tag says, read off the beginning of its file.

    A tag behind a PNG's pixels, where hardly any program puts it, is not seen.

    Raises:
        ValueError: how the file is damaged, as the end of a sentence that begins with its name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(content), formats=_formats())
        width, height = image.size
        # Pillow gives a TIFF's upright size, and would decode a whole PNG to look for a tag behind its pixels.
        untold = image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info)
        turned = not untold and image.getexif().get(ExifTags.Base.Orientation, 1) in _LYING
    except Exception as error:  # as in `open_image`
        raise ValueError(f"is not an image that can be read ({type(error).__name__})") from None
    return (width, height) if turned else (height, width)


def full_size(image: Image.Image) -> tuple[int, int]:
    """Width and height that the file of an opened image has."""
    return image.info.get(_FULL_SIZE, image.size)


def frame_count(image: Image.Image) -> int:
    """How many pictures, frames or pages, the file of an opened image has; 1 where their list is damaged.

    Pillow goes through the file for it, and may lose the picture on the way: take that first.
    """
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # what damaged data does to Pillow
        return 1


def is_deep_gray(image: Image.Image) -> bool:
    """Whether an opened image is gray in more than 8 bits or in floats, as depth maps are."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


_FULL_SIZE = "mforce_full_size"


def _draft(image: Image.Image) -> None:
    """Let the JPEG decoder shrink to at most `SHRINK_ABOVE` pixels, in steps of 2 up to 8."""
    width, height = image.size
    factor = next(f for f in (2, 4, 8) if width * height <= SHRINK_ABOVE * f * f)
    image.info[_FULL_SIZE] = width, height
    image.draft(None, (width // factor, height // factor))


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.ID if name not in _NOT_OPENED]
