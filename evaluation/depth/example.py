"""One picture of a data set with what was measured in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .alignment import Limits


@dataclass(frozen=True)
class Example:
    """A picture and its measured depth, cropped and sized as the data set's protocol has it.

    Attributes:
        name: of the picture in its data set, with slashes.
        image: (H, W, 3) uint8.
        depth: (H, W) float32, positive in the mask.
        mask: (H, W) bool, the pixels that are scored.
        intrinsics: (3, 3) pinhole camera in units of the picture's width and height, where known.
    """

    name: str
    image: np.ndarray
    depth: np.ndarray
    mask: np.ndarray
    intrinsics: np.ndarray | None = None


class DataSet(Protocol):
    """Examples by number. Reading one raises ValueError where its files cannot be used; its stamp changes with them.

    Attributes:
        title: as people call it.
        names: of its pictures, in order.
        limits: for the alignments.
        preparation: how pictures, depth and masks are prepared, in words, for the report.
        sharp: whether its depth is good enough at edges to score boundaries.
    """

    title: str
    names: list[str]
    limits: Limits
    preparation: str
    sharp: bool

    def read(self, index: int) -> Example: ...

    def stamp(self, index: int) -> str: ...


def checked(example: Example) -> Example:
    """The example itself.

    Raises:
        ValueError: no pixel counts, a picture and a depth map of two sizes, or depth that is not positive.
    """
    if example.image.shape[:2] != example.depth.shape:
        picture, depth = ("{1}x{0}".format(*array.shape[:2]) for array in (example.image, example.depth))
        raise ValueError(f"the picture is {picture} and its depth {depth}")
    if not example.mask.any():
        raise ValueError("no pixel has a depth that counts")
    counted = example.depth[example.mask]
    if not (np.isfinite(counted) & (counted > 0)).all():
        raise ValueError("its mask has pixels without a positive depth")
    return example
