"""ARKitScenes (Baruch et al., arXiv 2111.08897), raw, 3dod or upsampling.

In the folder of a video: ``lowres_depth/ID_TIME.png`` (192x256, the iPad's LiDAR) or ``highres_depth/ID_TIME.png``
(1440x1920, a laser scanner), 16-bit PNG in millimeters, planar, with the picture nearest in time, at most 10 ms away,
of ``wide``, else of ``lowres_wide``. Where ``metadata.csv`` lies in the root or above the video, pictures are turned
upright by its ``sky_direction``.
"""

from __future__ import annotations

import csv
from bisect import bisect_left
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from .frame import Frame, Listed, key_of, read_16_bit, walk

#: Seconds between a depth map and its picture.
_NEAR = 0.01

#: Quarter turns counterclockwise that bring the sky up.
_TURNS = {"Up": 0, "Right": 1, "Down": 2, "Left": 3}


def frames(root: Path) -> Iterator[Listed]:
    skies = _skies(root)
    pictures: dict[Path, dict[float, Path]] = {}
    for depth in walk(root, "*.png"):
        video = depth.parent.parent
        if depth.parent.name not in ("highres_depth", "lowres_depth"):
            continue
        if depth.parent.name == "lowres_depth" and (video / "highres_depth").is_dir():
            continue
        if video not in pictures:
            pictures = {video: _by_time(video)}
        image = _nearest(pictures[video], _time(depth))
        if image is not None:
            turns = _TURNS.get(skies.get(depth.stem.split("_")[0], "Up"), 0)
            yield Listed(key_of(depth, root), partial(_read, image, depth, turns))


def _read(image: Path, depth: Path, turns: int) -> Frame:
    millimeters = read_16_bit(depth, 0.001)
    if not turns:
        return Frame(image.read_bytes(), millimeters)
    with Image.open(image) as file:
        pixels = np.rot90(np.asarray(file.convert("RGB")), turns)
    return Frame(np.ascontiguousarray(pixels), np.ascontiguousarray(np.rot90(millimeters, turns)))


def _by_time(video: Path) -> dict[float, Path]:
    for name in ("wide", "lowres_wide"):
        found = [path for path in (video / name).glob("*") if path.suffix in (".png", ".jpg")]
        if found:
            return {_time(path): path for path in sorted(found, key=_time)}
    return {}


def _nearest(pictures: dict[float, Path], time: float) -> Path | None:
    times = list(pictures)
    place = bisect_left(times, time)
    near = min(times[max(0, place - 1) : place + 1], key=lambda other: abs(other - time), default=None)
    return pictures[near] if near is not None and abs(near - time) <= _NEAR + 1e-9 else None


def _time(path: Path) -> float:
    try:
        return float(path.stem.rsplit("_", 1)[-1])
    except ValueError:
        raise ValueError(f"{path} does not end in a time, as in 40753679_6791.123.png") from None


def _skies(root: Path) -> dict[str, str]:
    """Where the sky is, by video."""
    skies: dict[str, str] = {}
    for path in walk(root, "metadata.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            skies |= {row["video_id"]: row["sky_direction"] for row in csv.DictReader(file) if "sky_direction" in row}
    return skies
