"""BlendedMVS (Yao et al., arXiv 1911.10127).

``SCENE/blended_images/NNNNNNNN.jpg`` with ``SCENE/rendered_depth_maps/NNNNNNNN.pfm``, planar, known up to a factor
that differs by scene; 0 is no measurement. The ``_masked`` pictures are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ....mforce_core.depth.arrays import read_pfm
from .frame import Frame, Listed, key_of, walk


def frames(root: Path) -> Iterator[Listed]:
    for image in walk(root, "*.jpg"):
        if image.parent.name != "blended_images" or image.stem.endswith("_masked"):
            continue
        depth = image.parent.with_name("rendered_depth_maps") / f"{image.stem}.pfm"
        if depth.exists():
            yield Listed(key_of(image, root), partial(_read, image, depth))


def _read(image: Path, depth: Path) -> Frame:
    return Frame(image.read_bytes(), read_pfm(depth).astype(np.float32))
