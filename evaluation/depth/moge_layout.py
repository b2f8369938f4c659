"""Data sets in the folders of MoGe's evaluation: ``.index.txt`` and ``NAME/{image.jpg, depth.png, meta.json}``."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from .alignment import Limits
from .centered_view import centered_view
from .example import Example, checked
from .log_png import decode_log_png
from .pictures import rgb
from .sources import Source

INDEX = ".index.txt"

#: Depth farther than this many times the 1st percentile does not count.
_FARTHEST = 1000.0


@dataclass(frozen=True)
class MogeSize:
    """``width`` and ``height`` of a set's pictures in ``configs/eval/all_benchmarks.json``, and whether edges count."""

    title: str
    width: int
    height: int
    sharp: bool = False


MOGE_SETS = {
    "nyuv2": MogeSize("NYUv2", 640, 480),
    "kitti": MogeSize("KITTI", 750, 375),
    "eth3d": MogeSize("ETH3D", 2048, 1365),
    "ibims1": MogeSize("iBims-1", 640, 480, sharp=True),
    "sintel": MogeSize("Sintel", 872, 436, sharp=True),
    "diode": MogeSize("DIODE", 1024, 768),
    "gso": MogeSize("GSO", 512, 512),
    "ddad": MogeSize("DDAD", 1400, 700),
    "spring": MogeSize("Spring", 1920, 1080, sharp=True),
    "hammer": MogeSize("HAMMER", 1664, 832, sharp=True),
}


class MogeDataSet:
    """A data set as MoGe's loader prepares it.

    Args:
        key: of `MOGE_SETS`.
        source: its folder.

    Raises:
        ValueError: no such set in this layout, or no index.
    """

    def __init__(self, key: str, source: Source) -> None:
        if key not in MOGE_SETS:
            raise ValueError(f"MoGe's layout has no {key}: it has {', '.join(MOGE_SETS)}.")
        self.size, self.source = MOGE_SETS[key], source
        self.title, self.sharp, self.limits = self.size.title, self.size.sharp, Limits()
        lines = source.read(INDEX).decode("utf-8", "replace").splitlines()
        self.names = [line for line in lines if line.strip()]
        self.preparation = (
            f"MoGe's loader: centered view of {self.size.width}x{self.size.height}, Lanczos pictures, nearest depth; "
            f"finite depth up to {_FARTHEST:g} times its 1st percentile counts; no crop, no cap"
        )

    def read(self, index: int) -> Example:
        name = self.names[index]
        image = rgb(self.source.read(f"{name}/image.jpg"), f"{name}/image.jpg")
        depth = decode_log_png(self.source.read(f"{name}/depth.png"), f"{name}/depth.png")
        if image.shape[:2] != depth.shape:
            raise ValueError("the picture and its depth have two sizes")
        intrinsics = _intrinsics(self.source.read(f"{name}/meta.json"), name)
        known = np.isfinite(depth)
        if not known.any():
            raise ValueError("no pixel has a depth")
        view = centered_view(image, depth, known, intrinsics, (self.size.height, self.size.width))
        if not view.mask.any():
            raise ValueError("no pixel of the centered view has a depth")
        mask, counted = view.mask, view.depth[view.mask]
        if not counted.max() <= counted.min() * _FARTHEST:
            # As numpy.nanquantile there, which interpolates in the dtype of the map; it is not below the nearest depth.
            mask = mask & (view.depth <= np.quantile(counted, 0.01) * _FARTHEST)
        return checked(Example(name, view.image, view.depth, mask, view.intrinsics))

    def stamp(self, index: int) -> str:
        name = self.names[index]
        return self.source.stamp(*(f"{name}/{part}" for part in ("image.jpg", "depth.png", "meta.json")))


def _intrinsics(content: bytes, name: str) -> np.ndarray:
    try:
        matrix = np.array(json.loads(content)["intrinsics"], dtype=np.float32)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{name}/meta.json has no 3x3 intrinsics") from None
    return matrix
