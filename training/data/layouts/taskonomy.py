"""Taskonomy (Zamir et al., arXiv 1804.08328), also as Omnidata distributes it.

``rgb/.../point_P_view_V_domain_rgb.png`` with ``depth_zbuffer/.../point_P_view_V_domain_depth_zbuffer.png``, in that
or the other order of folders (``BUILDING/rgb``, ``BUILDING_rgb/rgb``). 16-bit PNG in 1/512 m, planar; 65535 is no
measurement. ``depth_euclidean``, the distance along the ray, is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from .frame import Frame, Listed, key_of, read_16_bit, walk

_RGB, _DEPTH = "rgb", "depth_zbuffer"


def frames(root: Path) -> Iterator[Listed]:
    for image in walk(root, f"*_domain_{_RGB}.png"):
        below = image.relative_to(root)
        folders = [_DEPTH if p == _RGB else p.removesuffix(_RGB) + _DEPTH if p.endswith("_rgb") else p
                   for p in below.parent.parts]  # fmt: skip
        depth = root.joinpath(*folders, image.name.replace(f"_domain_{_RGB}", f"_domain_{_DEPTH}"))
        if depth.exists():
            yield Listed(key_of(image, root), partial(_read, image, depth))


def _read(image: Path, depth: Path) -> Frame:
    meters = read_16_bit(depth, 1 / 512)
    return Frame(image.read_bytes(), np.where(meters < 65535 / 512, meters, np.nan).astype(np.float32))
