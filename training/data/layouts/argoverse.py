"""Argoverse 2, sensor data set (Wilson et al., arXiv 2301.00493; argoverse/av2-api).

``SPLIT/LOG/sensors/cameras/CAMERA/TIME.jpg`` with ``sensors/lidar/TIME.feather`` (x, y, z in the vehicle's frame at
the time of the sweep), ``calibration/{intrinsics,egovehicle_SE3_sensor}.feather`` and ``city_SE3_egovehicle.feather``.
Each picture takes the sweep nearest in time; its points are moved by the vehicle's motion in between and projected by
the pinhole of the camera, as the official API does. Depth is metric and planar, one point a measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from ..extras import need
from .frame import Frame, Listed, key_of, walk

#: Nanoseconds between a picture and its sweep, of which there are ten a second.
_NEAR = 51_000_000


class _Camera(NamedTuple):
    matrix: np.ndarray  # (3, 3)
    size: tuple[int, int]  # (height, width)
    to_vehicle: np.ndarray  # (4, 4)


def frames(root: Path) -> Iterator[Listed]:
    for image in walk(root, "*.jpg"):
        if image.parents[1].name != "cameras":
            continue
        log = image.parents[3]
        sweeps = _sweeps(log)
        if not len(sweeps):
            continue
        time = int(image.stem)
        sweep = int(sweeps[np.abs(sweeps - time).argmin()])
        if abs(sweep - time) <= _NEAR:
            yield Listed(key_of(image, root), partial(_read, image, log, sweep))


def _read(image: Path, log: Path, sweep: int) -> Frame:
    camera = _cameras(log)[image.parent.name]
    times, poses = _poses(log)
    at_sweep, at_picture = (poses[np.abs(times - time).argmin()] for time in (sweep, int(image.stem)))
    table = _table(log / "sensors" / "lidar" / f"{sweep}.feather")
    points = np.stack([table["x"], table["y"], table["z"], np.ones(len(table["x"]))], axis=1).astype(np.float64)
    moved = points @ (np.linalg.inv(camera.to_vehicle) @ np.linalg.inv(at_picture) @ at_sweep).T
    moved = moved[moved[:, 2] > 0.1]
    projected = moved[:, :3] @ camera.matrix.T
    found = np.column_stack([projected[:, :2] / projected[:, 2:], moved[:, 2]])
    height, width = camera.size
    inside = (found[:, 0] >= 0) & (found[:, 0] < width) & (found[:, 1] >= 0) & (found[:, 1] < height)
    return Frame(image.read_bytes(), points=found[inside].astype(np.float32))


@lru_cache(maxsize=4)
def _sweeps(log: Path) -> np.ndarray:
    return np.array(sorted(int(path.stem) for path in (log / "sensors" / "lidar").glob("*.feather")), dtype=np.int64)


@lru_cache(maxsize=4)
def _cameras(log: Path) -> dict[str, _Camera]:
    inside = _table(log / "calibration" / "intrinsics.feather")
    outside = _table(log / "calibration" / "egovehicle_SE3_sensor.feather")
    places = dict(zip(outside["sensor_name"].tolist(), _transforms(outside), strict=True))
    found = {}
    for row, name in enumerate(inside["sensor_name"].tolist()):
        fx, fy, cx, cy = (float(inside[f"{key}_px"][row]) for key in ("fx", "fy", "cx", "cy"))
        size = int(inside["height_px"][row]), int(inside["width_px"][row])
        found[name] = _Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), size, places[name])
    return found


@lru_cache(maxsize=4)
def _poses(log: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times (n,) and the vehicle's places (n, 4, 4) in the city."""
    table = _table(log / "city_SE3_egovehicle.feather")
    return table["timestamp_ns"], _transforms(table)


def _transforms(table: dict[str, np.ndarray]) -> np.ndarray:
    turns = Rotation.from_quat(np.stack([table[name] for name in ("qx", "qy", "qz", "qw")], axis=1))
    found = np.tile(np.eye(4), (len(turns), 1, 1))
    found[:, :3, :3] = turns.as_matrix()
    found[:, :3, 3] = np.stack([table[name] for name in ("tx_m", "ty_m", "tz_m")], axis=1)
    return found


def _table(path: Path) -> dict[str, np.ndarray]:
    """Columns by name."""
    table = need("pyarrow.feather", "Reading Argoverse 2", "convert").read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}
