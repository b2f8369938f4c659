"""What every reader gives: frames that are listed cheaply and read one by one."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Frame(NamedTuple):
    """A picture and its depth.

    ``image``: a JPEG or PNG as it lies on disk, or (H, W, 3) uint8. Either ``depth`` (h, w) float32, planar, 0 or NaN
    where nothing was measured, or ``points`` (n, 3) float32: x and y in pixels of the picture, and planar depth.
    """

    image: bytes | np.ndarray
    depth: np.ndarray | None = None
    points: np.ndarray | None = None


class Listed(NamedTuple):
    """A frame that is not read yet; ``read`` raises ValueError or OSError where it cannot be used."""

    key: str
    read: Callable[[], Frame]


def walk(root: Path, pattern: str) -> Iterator[Path]:
    """Files below ``root`` whose names match, in a fixed order, without listing everything first."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(fnmatch.filter(files, pattern)):
            yield Path(folder, name)


def key_of(path: Path, root: Path) -> str:
    """The path below ``root`` without its ending; dots separate the parts of a sample and become underscores."""
    below = path.relative_to(root)
    return "/".join([*(part.replace(".", "_") for part in below.parent.parts), below.stem.replace(".", "_")])


def read_16_bit(path: Path, scale: float) -> np.ndarray:
    """A 16-bit PNG times ``scale``, (H, W) float32."""
    with Image.open(path) as image:
        if not image.mode.startswith("I"):
            raise ValueError(f"{path} is no 16-bit PNG, but of mode {image.mode}")
        return np.asarray(image).astype(np.float32) * np.float32(scale)


def planar(distance: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Distance along each pixel's ray (H, W) as depth along the camera's axis.

    Args:
        rays: (H, W, 3) directions of any length whose last coordinate lies along the axis.
    """
    return (distance * np.abs(rays[..., 2]) / np.linalg.norm(rays, axis=-1)).astype(np.float32)
