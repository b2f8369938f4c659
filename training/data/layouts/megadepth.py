"""MegaDepth v1 (Li & Snavely, arXiv 1804.00607).

``SCENE/denseK/imgs/NAME.jpg`` with ``SCENE/denseK/depths/NAME.h5``, dataset ``depth``: planar, known up to a factor
that differs by scene; 0 is no measurement. Maps with negative values hold ordinal labels instead of depth and are
refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..extras import need
from .frame import Frame, Listed, key_of, walk


def frames(root: Path) -> Iterator[Listed]:
    for image in walk(root, "*"):
        if image.parent.name != "imgs" or image.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            continue
        depth = image.parent.with_name("depths") / f"{image.stem}.h5"
        if depth.exists():
            yield Listed(key_of(image, root), partial(_read, image, depth))


def _read(image: Path, depth: Path) -> Frame:
    with need("h5py", "Reading MegaDepth", "convert").File(depth, "r") as file:
        values = file["depth"][()].astype(np.float32)
    if values.min() < 0:
        raise ValueError(f"{depth} holds ordinal labels, not depth")
    return Frame(image.read_bytes(), values)
