"""Real pictures with captions, from which depth to image is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ...mforce_core.picture.color import to_bytes
from ...mforce_core.picture.reading import read_picture
from ...mforce_core.release import NANO_SIZE
from ...mforce_core.text_file import read_text
from ...scenes import captions, render, sample_layouts


@dataclass(frozen=True)
class Pair:
    """A picture (H, W, 3) uint8, its caption, and its exact depth (H, W) where that is known."""

    name: str
    image: np.ndarray
    caption: str
    depth: np.ndarray | None = None


class Pairs(Protocol):
    """Pairs by number. Reading one raises ValueError where its picture cannot be used."""

    title: str
    names: list[str]

    def read(self, index: int) -> Pair: ...


class ListedPairs:
    """Pictures that a list names: a line each, the path, a tab, the caption. OpenImages has no captions of its own.

    Args:
        listing: the list.
        folder: what its paths are relative to.

    Raises:
        ValueError: a line without a caption, or no line.
    """

    def __init__(self, listing: Path, folder: Path) -> None:
        self.title, self.folder = listing.name, folder
        self._lines = [line.split("\t", 1) for line in read_text(listing).splitlines() if line.strip()]
        bare = next((line[0] for line in self._lines if len(line) < 2 or not line[1].strip()), None)
        if bare is not None or not self._lines:
            what = f"{bare} has no caption" if bare is not None else "it is empty"
            raise ValueError(f"{listing}: {what}; a line is a path, a tab and a caption.")
        self.names = [path.rpartition(".")[0].replace("/", "-") or path for path, _ in self._lines]
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"{listing} names a picture twice.")

    def read(self, index: int) -> Pair:
        path, caption = self._lines[index]
        image = np.asarray(read_picture(self.folder / path).image)
        return Pair(self.names[index], image, caption.strip())


class RenderedPairs:
    """The built-in model's scenes, with their captions and exact depth."""

    def __init__(self, count: int, seed: int) -> None:
        self.title, self._seed = "rendered scenes", seed
        self.names = [f"scene_{number:05d}" for number in range(count)]

    def read(self, index: int) -> Pair:
        layout = sample_layouts(1, self._seed, index)
        images, depth = render(layout, NANO_SIZE)
        pixels = to_bytes(images[0]).permute(1, 2, 0).numpy()
        return Pair(self.names[index], pixels, captions(layout)[0], depth[0].numpy())
