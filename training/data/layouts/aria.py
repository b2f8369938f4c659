"""Aria Synthetic Environments (Avetisyan et al., arXiv 2403.13064; facebookresearch/projectaria_tools).

``SCENE/rgb/vignetteNNNNNNN.jpg`` with ``SCENE/depth/depthNNNNNNN.png``, 704x704, 16-bit PNG in millimeters; 0 and
65535 are no measurement. Pictures come from a fisheye lens that is turned by 90 degrees, and depth is the distance
along each pixel's ray. Here both are resampled to a pinhole of the same focal length, depth becomes planar, and the
picture upright.

The lens is in the official package, not beside the pictures: ``calibration.json`` in the root has its
``projection_params``, 15 numbers of the model FISHEYE624 (focal length, center, six radial, two tangential and four
thin-prism coefficients).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates

from .frame import Frame, Listed, key_of, planar, walk

_CALIBRATION = "calibration.json"


def frames(root: Path) -> Iterator[Listed]:
    lens = _lens(root / _CALIBRATION)
    for image in walk(root, "vignette*.jpg"):
        depth = image.parent.with_name("depth") / f"{image.stem.replace('vignette', 'depth')}.png"
        if image.parent.name == "rgb" and depth.exists():
            yield Listed(key_of(image, root), partial(_read, image, depth, lens))


def _lens(path: Path) -> tuple[float, ...]:
    if not path.exists():
        raise ValueError(f"{path} is missing: it has the projection_params of the RGB camera, from projectaria_tools")
    try:
        lens = tuple(float(number) for number in json.loads(path.read_text(encoding="utf-8"))["projection_params"])
    except (ValueError, KeyError, TypeError):
        lens = ()
    if len(lens) != 15:
        raise ValueError(f"{path} does not hold projection_params, 15 numbers of the model FISHEYE624")
    return lens


def _read(image: Path, depth: Path, lens: tuple[float, ...]) -> Frame:
    with Image.open(image) as file:
        pixels = np.asarray(file.convert("RGB"))
    with Image.open(depth) as file:
        millimeters = np.asarray(file).astype(np.float32)
    if millimeters.shape != pixels.shape[:2]:
        raise ValueError(f"{depth} and {image} have different sizes")
    rays, places = _pinhole(millimeters.shape, lens)
    seen = [map_coordinates(channel, places, order=1, cval=0) for channel in np.moveaxis(pixels, -1, 0)]
    distance = map_coordinates(millimeters, places, order=0, cval=0)
    meters = planar(np.where(distance < 65535, distance, 0) / 1000, rays)
    upright = (np.ascontiguousarray(np.rot90(array, -1)) for array in (np.stack(seen, axis=-1), meters))
    return Frame(*upright)


@lru_cache(maxsize=2)
def _pinhole(size: tuple[int, int], lens: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rays (H, W, 3) of a pinhole with the lens's focal length, and where the lens shows them: (2, H, W), row first."""
    height, width = size
    x = (np.arange(width) - (width - 1) / 2) / lens[0]
    y = (np.arange(height) - (height - 1) / 2) / lens[0]
    rays = np.stack([*np.meshgrid(x, y), np.ones(size)], axis=-1)
    return rays, project(rays, lens)[::-1]


def project(rays: np.ndarray, lens: tuple[float, ...]) -> np.ndarray:
    """Where FISHEYE624 shows directions (..., 3): columns and rows, (2, ...)."""
    focal, *center = lens[:3]
    radial, tangential, prism = np.array(lens[3:9]), np.array(lens[9:11]), np.array(lens[11:15])
    flat = np.moveaxis(rays[..., :2] / rays[..., 2:], -1, 0)
    radius = np.linalg.norm(flat, axis=0)
    angle = np.arctan(radius)
    bent = angle * (1 + sum(k * angle ** (2 * power) for power, k in enumerate(radial, 1)))
    point = flat * np.where(radius > 1e-9, bent / np.maximum(radius, 1e-9), 1)
    square = (point**2).sum(0)
    across = np.tensordot(tangential, point, 1)
    moved = point * (1 + 2 * across) + square * tangential[:, None, None]
    moved = moved + np.stack([prism[0] * square + prism[1] * square**2, prism[2] * square + prism[3] * square**2])
    return focal * moved + np.array(center)[:, None, None]
