"""Hypersim (Roberts et al., arXiv 2011.02523).

``ai_VVV_NNN/images/scene_cam_XX_final_preview/frame.IIII.tonemap.jpg`` with
``scene_cam_XX_geometry_hdf5/frame.IIII.depth_meters.hdf5``. In spite of its name that holds the distance to the
optical center in meters (ml-hypersim, issue 9), which is converted to planar depth here: with ``M_cam_from_uv`` of the
scene where ``metadata_camera_parameters.csv`` lies in the root, since a few scenes have shifted lenses, else with the
field of view of 60 degrees of all others. NaN is no measurement.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ..extras import need
from .frame import Frame, Listed, key_of, planar, walk

#: Tangent of half the horizontal field of view: 512 / 886.81 pixels.
_TANGENT = 512 / 886.81


def frames(root: Path) -> Iterator[Listed]:
    cameras = _cameras(root / "metadata_camera_parameters.csv")
    for image in walk(root, "*.tonemap.jpg"):
        preview = image.parent
        if not preview.name.endswith("_final_preview"):
            continue
        geometry = preview.with_name(preview.name.replace("_final_preview", "_geometry_hdf5"))
        depth = geometry / image.name.replace(".tonemap.jpg", ".depth_meters.hdf5")
        if depth.exists():
            scene = preview.parent.parent.name
            yield Listed(key_of(image, root), partial(_read, image, depth, cameras.get(scene)))


def _read(image: Path, depth: Path, from_uv: np.ndarray | None) -> Frame:
    with need("h5py", "Reading Hypersim", "convert").File(depth, "r") as file:
        distance = file["dataset"][()].astype(np.float32)
    return Frame(image.read_bytes(), planar(distance, _rays(distance.shape, from_uv)))


def _rays(size: tuple[int, ...], from_uv: np.ndarray | None) -> np.ndarray:
    """(H, W, 3) directions; u to the right and v up span -1 to 1 over the picture."""
    height, width = size
    if from_uv is None:
        from_uv = np.diag([_TANGENT, _TANGENT * height / width, -1.0])
    u = (np.arange(width) * 2 + 1) / width - 1
    v = 1 - (np.arange(height) * 2 + 1) / height
    grid = np.stack([*np.meshgrid(u, v), np.ones(size)], axis=-1)
    return grid @ from_uv.T


def _cameras(path: Path) -> dict[str, np.ndarray]:
    """``M_cam_from_uv`` (3, 3) by scene; none where there is no such file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            row["scene_name"]: np.array([[float(row[f"M_cam_from_uv_{y}{x}"]) for x in range(3)] for y in range(3)])
            for row in csv.DictReader(file)
        }
