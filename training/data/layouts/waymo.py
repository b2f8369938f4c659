"""Waymo Open (Sun et al., arXiv 1912.04838), from projections that the official package exports.

The records themselves need TensorFlow and ``waymo_open_dataset``; docs/data-sets.md has the few lines that write, with
it, ``SEGMENT/TIME_CAMERA.jpg`` and ``SEGMENT/TIME_CAMERA.npz`` for each picture: ``points`` (n, 3), the LiDAR's points
in the vehicle's frame, ``pixels`` (n, 2), where ``cp_points`` says that this camera sees them, and ``extrinsic`` (4,
4), the camera's calibration. Waymo's cameras look along x, so depth is the point's x in the camera's frame: metric and
planar.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from .frame import Frame, Listed, key_of, walk


def frames(root: Path) -> Iterator[Listed]:
    for image in walk(root, "*.jpg"):
        exported = image.with_suffix(".npz")
        if exported.exists():
            yield Listed(key_of(image, root), partial(_read, image, exported))


def _read(image: Path, exported: Path) -> Frame:
    with np.load(exported, allow_pickle=False) as file:
        missing = {"points", "pixels", "extrinsic"} - set(file.files)
        if missing:
            raise ValueError(f"{exported} lacks {', '.join(sorted(missing))}")
        points, pixels, extrinsic = (file[name].astype(np.float64) for name in ("points", "pixels", "extrinsic"))
    in_camera = np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(extrinsic).T
    found = np.column_stack([pixels, in_camera[:, 0]])
    return Frame(image.read_bytes(), points=found[found[:, 2] > 0].astype(np.float32))
