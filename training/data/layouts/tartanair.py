"""TartanAir v2 (castacks/tartanairpy, docs/modalities).

``ENV/Data_{easy,hard}/PNNN/image_CAM/FRAME_CAM.png`` with ``depth_CAM/FRAME_CAM_depth.png``. Depth is float32 meters,
planar, whose four bytes are the blue, green, red and alpha of an 8-bit PNG. Sky has a very large depth; from 1000 m on
there is no measurement here. The cameras ``fish`` and ``equirect``, which are no pinholes, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .frame import Frame, Listed, key_of, walk

_SKY = 1000.0
_NO_PINHOLES = ("_fish", "_equirect")


def frames(root: Path) -> Iterator[Listed]:
    for image in walk(root, "*cam_*.png"):
        camera = image.parent.name
        if not camera.startswith("image_") or camera.endswith(_NO_PINHOLES):
            continue
        depth = image.parent.with_name(camera.replace("image_", "depth_", 1)) / f"{image.stem}_depth.png"
        if depth.exists():
            yield Listed(key_of(image, root), partial(_read, image, depth))


def _read(image: Path, depth: Path) -> Frame:
    with Image.open(depth) as file:
        if file.mode != "RGBA":
            raise ValueError(f"{depth} is no float depth in four channels, but of mode {file.mode}")
        rgba = np.asarray(file)
    meters = np.ascontiguousarray(rgba[..., [2, 1, 0, 3]]).view("<f4")[..., 0]
    return Frame(image.read_bytes(), np.where(meters < _SKY, meters, np.nan).astype(np.float32))
