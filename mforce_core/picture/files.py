"""Opening image files that anyone may have made."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError


def open_image(path: Path) -> Image.Image:
    """Open and fully decode an image file.

    Raises:
        ValueError: in one sentence why that is not possible.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the path of an image file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
            image.load()
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image that Pillow can read: save it as PNG or JPEG.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{path} has too many pixels to be opened safely: shrink it first.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be decoded ({error}): the file may be cut short; copy it again.") from None
    return image
