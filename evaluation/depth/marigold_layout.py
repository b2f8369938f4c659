"""Data sets as Marigold's evaluation reads them: a folder or a tar, and a list with one line per picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .alignment import Limits
from .example import Example, checked
from .pictures import array, levels, rgb
from .sources import Source

#: (top, bottom, left, right) of the pixels that count, in pixels or as shares of the height and width.
Region = tuple[float, float, float, float]

#: KITTI's regions: Eigen's of 2014, which Marigold uses, and Garg's of 2016.
KITTI_REGIONS: dict[str, Region | None] = {
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "none": None,
}
#: Height and width of KITTI's benchmark pictures: the bottom of a frame, its middle from left to right.
_KITTI_CROP = (352, 1216)
#: Size of ETH3D's pictures; its depth files have no header.
ETH3D_SIZE = (4032, 6048)

Decode = Callable[[bytes, str], np.ndarray]


def _millimeters(content: bytes, name: str) -> np.ndarray:
    return (levels(content, name) / 1000.0).astype(np.float32)


def _kitti_depth(content: bytes, name: str) -> np.ndarray:
    return (levels(content, name) / 256.0).astype(np.float32)


def _sun_rgbd_depth(content: bytes, name: str) -> np.ndarray:
    """Millimeters whose bits are rotated by three, as SUN RGB-D's own reader has it."""
    bits = levels(content, name) & 0xFFFF
    return (((bits >> 3) | (bits << 13)) & 0xFFFF).astype(np.float32) / 1000


def _eth3d_depth(content: bytes, name: str) -> np.ndarray:
    values = np.frombuffer(content[: len(content) // 4 * 4], dtype="<f4")
    if values.size != ETH3D_SIZE[0] * ETH3D_SIZE[1]:
        raise ValueError(f"{name} has {values.size:,} numbers: ETH3D's maps are {ETH3D_SIZE[1]}x{ETH3D_SIZE[0]}")
    return np.where(np.isposinf(values), np.float32(0), values).reshape(ETH3D_SIZE)


def _array(content: bytes, name: str) -> np.ndarray:
    return array(content, name).astype(np.float32)


@dataclass(frozen=True)
class MarigoldSet:
    """How a set's depth is read and which of its pixels count.

    Attributes:
        low, high: depth strictly between them counts, and aligned depth is clipped to them.
        region: of the pixels that count; None: all.
        own_mask: the list names a mask for each picture, which alone decides.
        fit_side: see `Limits`.
        crop: KITTI's benchmark crop, before everything else.
        listed: Marigold's list, below its ``data_split``.
    """

    title: str
    decode: Decode
    low: float
    high: float
    listed: str
    region: Region | None = None
    own_mask: bool = False
    fit_side: int | None = None
    crop: bool = False


MARIGOLD_SETS = {
    "nyuv2": MarigoldSet(
        "NYUv2", _millimeters, 1e-3, 10.0, "nyu_depth/labeled/filename_list_test.txt", region=(45, 471, 41, 601)
    ),
    "kitti": MarigoldSet(
        "KITTI", _kitti_depth, 1e-5, 80.0, "kitti_depth/eigen_test_files_with_gt.txt",
        region=KITTI_REGIONS["eigen"], crop=True,
    ),
    "eth3d": MarigoldSet(
        "ETH3D", _eth3d_depth, 1e-5, np.inf, "eth3d_depth/eth3d_filename_list.txt",
        fit_side=1024,  # Marigold's script predicts at a longest side of 756
    ),
    "scannet": MarigoldSet(
        "ScanNet", _millimeters, 1e-3, 10.0, "scannet_depth/scannet_val_sampled_list_800_1.txt"
    ),
    "diode": MarigoldSet(
        "DIODE", _array, 0.6, 350.0, "diode_depth/diode_val_all_filename_list.txt",
        own_mask=True,  # and here of 640
    ),
    "sunrgbd": MarigoldSet("SUN RGB-D", _sun_rgbd_depth, 1e-3, 10.0, "(none: a list of your own)"),
}  # fmt: skip


class MarigoldDataSet:
    """A data set as Marigold's loaders prepare it.

    Args:
        key: of `MARIGOLD_SETS`.
        source: folder or tar.
        listing: text of the list: picture, depth and, where the set has them, a filled map or a mask.
        region: another region of KITTI, of `KITTI_REGIONS`.

    Raises:
        ValueError: no such set, or a list that names nothing.
    """

    def __init__(self, key: str, source: Source, listing: str, region: str = "eigen") -> None:
        if key not in MARIGOLD_SETS:
            raise ValueError(f"Marigold's layout has no {key}: it has {', '.join(MARIGOLD_SETS)}.")
        if region not in KITTI_REGIONS:
            raise ValueError(f"KITTI's regions are {', '.join(KITTI_REGIONS)}, not {region}.")
        self.spec, self.source = MARIGOLD_SETS[key], source
        self._region = KITTI_REGIONS[region] if self.spec.crop else self.spec.region
        self._lines = [line.split() for line in listing.splitlines() if line.strip()]
        # KITTI's list has pictures without a measurement.
        self._lines = [line for line in self._lines if len(line) < 2 or line[1] != "None"]
        if not self._lines:
            raise ValueError("The list names no pictures.")
        self.title, self.sharp = self.spec.title, False
        self.limits = Limits(self.spec.low, self.spec.high, self.spec.fit_side)
        self.names = [line[0].rpartition(".")[0] or line[0] for line in self._lines]
        crop = "bottom-center crop of {1}x{0}; ".format(*_KITTI_CROP) if self.spec.crop else ""
        counts = "the set's own mask" if self.spec.own_mask else f"{self.spec.low:g} < depth < {self.spec.high:g}"
        where = "" if self._region is None else " in rows {:g} to {:g} and columns {:g} to {:g}".format(*self._region)
        self.preparation = f"Marigold's loader: {crop}{counts}{where} counts"

    def read(self, index: int) -> Example:
        line = self._lines[index]
        if len(line) < (3 if self.spec.own_mask else 2):
            raise ValueError(f"its line in the list has {len(line)} entries")
        image = rgb(self.source.read(line[0]), line[0])
        depth = self.spec.decode(self.source.read(line[1]), line[1])
        if self.spec.own_mask:
            mask = array(self.source.read(line[2]), line[2]).astype(bool)
            if mask.shape != depth.shape:
                raise ValueError(f"{line[2]} has another size than its depth")
            mask &= depth > 0  # measured with zero depth: DIODE has none such, a damaged file may
        if self.spec.crop:
            image, depth = _benchmark_crop(image), _benchmark_crop(depth)
        if not self.spec.own_mask:
            mask = (depth > self.spec.low) & (depth < self.spec.high)
        if self._region is not None:
            mask &= _inside(depth.shape, self._region)
        return checked(Example(self.names[index], image, depth, mask))

    def stamp(self, index: int) -> str:
        return self.source.stamp(*self._lines[index])


def _benchmark_crop(picture: np.ndarray) -> np.ndarray:
    height, width = _KITTI_CROP
    top, left = picture.shape[0] - height, (picture.shape[1] - width) // 2
    if top < 0 or left < 0:
        raise ValueError(f"it is {picture.shape[1]}x{picture.shape[0]}, smaller than KITTI's benchmark crop")
    return picture[top : top + height, left : left + width]


def _inside(shape: tuple[int, ...], region: Region) -> np.ndarray:
    """(H, W) bool; shares of the size are rounded down."""
    bounds = region if region[1] > 1 else tuple(
        share * side for share, side in zip(region, (shape[0], shape[0], shape[1], shape[1]), strict=True)
    )  # fmt: skip
    top, bottom, left, right = (int(bound) for bound in bounds)
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask
