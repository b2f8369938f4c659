"""Predictions that some program saved, found by the names of their pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ...mforce_core.depth.arrays import as_map, read_npy, read_npz, read_pfm
from ...mforce_core.depth.exr import read_exr
from ...mforce_core.depth.images import read_image
from ..stamps import file_facts, stamp_of
from .alignment import Kind
from .example import Example
from .log_png import decode_log_png, is_log_png

#: Endings that are read, the more exact ones first.
ENDINGS = (".npy", ".npz", ".exr", ".pfm", ".tiff", ".tif", ".png")


class SavedPredictions:
    """Maps below a folder.

    The map of ``a/b`` is ``a/b.npy`` (or another ending), ``a/b/depth.npy``, ``a/b_depth.npy``, ``a/b_pred.npy``,
    Marigold's ``a/pred_b.npy`` and, of ``rgb_0001``, ``pred_0001.npy``; or the same with the folders joined by ``_`` or
    ``-``, or only the last part of the name where no other file and no other picture has it.

    Args:
        folder: where they are.
        kind: what their numbers are: depth or disparity.
        names: of all pictures; only needed to know which of them share the last part.

    Raises:
        ValueError: no such folder, or no map in it.
    """

    def __init__(self, folder: Path, kind: Kind, names: Sequence[str] = ()) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder with predictions.")
        self.kind, self.folder = kind, folder
        self._pictures = Counter(PurePosixPath(name).name for name in names)
        self._files: dict[str, Path] = {}
        self._leaves: dict[str, list[Path]] = {}
        for ending in ENDINGS:
            for path in sorted(folder.rglob(f"*{ending}")):
                stem = path.relative_to(folder).with_suffix("").as_posix()
                if self._files.setdefault(stem, path) == path:
                    self._leaves.setdefault(PurePosixPath(stem).name, []).append(path)
        if not self._files:
            raise ValueError(f"There are no maps in {folder}: they end in {', '.join(ENDINGS)}.")

    def predict(self, example: Example) -> np.ndarray:
        """The map of a picture, (h, w) float, NaN where there is none; raises ValueError."""
        return self.read(self.find(example.name))

    def read(self, path: Path) -> np.ndarray:
        """A map as its numbers are; see `read_prediction`."""
        return read_prediction(path, self.kind)

    def stamp(self, name: str) -> str:
        """A mark of the map of a picture, empty where there is none."""
        try:
            return stamp_of(file_facts(self.find(name)))
        except ValueError:
            return ""

    def find(self, name: str) -> Path:
        """The file of a picture's map; raises ValueError where there is none, or several."""
        for candidate in _candidates(name):
            if candidate in self._files:
                return self._files[candidate]
        leaf = PurePosixPath(name).name
        alone = self._leaves.get(leaf, []) if self._pictures[leaf] <= 1 else []
        if len(alone) != 1:
            reason = "several files with that name" if alone else "no prediction"
            raise ValueError(f"there is {reason} for {name} in {self.folder}")
        return alone[0]


def _candidates(name: str) -> list[str]:
    path = PurePosixPath(name)
    leaf = path.name
    leaves = [leaf, f"{leaf}/depth", f"{leaf}_depth", f"{leaf}_pred", f"pred_{leaf}", f"pred_{leaf.partition('_')[2]}"]
    found = [path.with_name(part).as_posix() if "/" not in part else f"{name}/depth" for part in leaves]
    return [*found, name.replace("/", "_"), name.replace("/", "-")]


def read_prediction(path: Path, kind: Kind) -> np.ndarray:
    """A saved map (h, w) float32 as its numbers are, NaN where there is none.

    Zeros and negative numbers of floats are predictions: affine-invariant maps have them. In pictures of integers 0 is
    a missing depth, but the disparity of what is far. What mforce or MoGe wrote into a picture about its numbers is
    used.

    Raises:
        ValueError: the file cannot be read as a map.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        values = as_map(path, read_npy(path))
    elif suffix == ".npz":
        values = as_map(path, read_npz(path)[0])
    elif suffix == ".pfm":
        values = read_pfm(path)
    elif suffix == ".exr":
        exr = read_exr(path, None)
        values = exr.numbers if exr.encoding is None else exr.encoding.depth(exr.numbers)
    else:
        return _read_picture(path, kind)
    values = values.astype(np.float32)
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def _read_picture(path: Path, kind: Kind) -> np.ndarray:
    if path.suffix.lower() == ".png":
        content = path.read_bytes()
        if is_log_png(content, path.name):
            depth = decode_log_png(content, path.name)
            return np.where(np.isfinite(depth), depth, np.float32(np.nan))
    image = read_image(path)
    numbers = np.where(image.present, image.numbers, np.nan).astype(np.float32)
    if image.encoding is not None:
        return image.encoding.depth(np.where(numbers > 0, numbers, np.float32(np.nan)))
    if image.levels is not None and kind == "depth":
        numbers = np.where(numbers > 0, numbers, np.float32(np.nan))
    return np.where(np.isfinite(numbers), numbers, np.float32(np.nan))
