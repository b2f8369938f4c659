"""FoundationStereo's training set (Wen et al., arXiv 2501.09898).

``SCENE/dataset/data/left/rgb/NNNN.{jpg,png}`` with ``left/disparity/NNNN.png``: disparity in pixels, known up to a
factor as inverse depth since focal length and baseline differ by scene. Its three channels count (65025 red + 255
green + blue) / 1000; 0 is no measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .frame import Frame, Listed, key_of, walk


def frames(root: Path) -> Iterator[Listed]:
    for disparity in walk(root, "*.png"):
        left = disparity.parent.parent
        if disparity.parent.name != "disparity" or left.name != "left":
            continue
        images = [left / "rgb" / f"{disparity.stem}{ending}" for ending in (".jpg", ".png")]
        image = next((path for path in images if path.exists()), None)
        if image is not None:
            yield Listed(key_of(image, root), partial(_read, image, disparity))


def _read(image: Path, disparity: Path) -> Frame:
    with Image.open(disparity) as file:
        red, green, blue = np.moveaxis(np.asarray(file.convert("RGB")).astype(np.float32), -1, 0)
    return Frame(image.read_bytes(), (red * 65025 + green * 255 + blue) / np.float32(1000))
