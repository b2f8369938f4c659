"""ParallelDomain-4D (Van Hoorick et al., arXiv 2405.14868).

``scene_NNNNNN/rgb/CAMERA/TIME.png`` with ``depth/CAMERA/TIME.npz``, array ``data``: meters, planar. From 500 m on,
which is sky, there is no measurement here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .frame import Frame, Listed, key_of, walk

_SKY = 500.0


def frames(root: Path) -> Iterator[Listed]:
    for image in walk(root, "*.png"):
        camera = image.parent
        if camera.parent.name != "rgb":
            continue
        depth = camera.parent.with_name("depth") / camera.name / f"{image.stem}.npz"
        if depth.exists():
            yield Listed(key_of(image, root), partial(_read, image, depth))


def _read(image: Path, depth: Path) -> Frame:
    with np.load(depth, allow_pickle=False) as file:
        meters = file["data"].astype(np.float32)
    with Image.open(image) as file:
        pixels = np.asarray(file.convert("RGB"))  # its alpha is no transparency
    return Frame(pixels, np.where(meters < _SKY, meters, np.nan).astype(np.float32))
