"""The built-in model's held-out scenes as a data set: rendered pictures with exact depth."""

from __future__ import annotations

import numpy as np

from ...mforce_core.picture.color import to_bytes
from ...mforce_core.release import NANO_SIZE
from ...scenes import render, sample_layouts
from .alignment import Limits
from .example import Example, checked


class RenderedScenes:
    """The first scenes of a sequence; training uses small seeds.

    Args:
        count: of scenes.
        seed: of the sequence.
    """

    def __init__(self, count: int, seed: int = 1_000_000) -> None:
        self.title, self.sharp, self.limits = "rendered scenes", True, Limits()
        self.names = [f"scene_{number:05d}" for number in range(count)]
        self.preparation = f"rendered at {NANO_SIZE}x{NANO_SIZE}, sequence {seed}; every pixel with a surface counts"
        self._seed = seed

    def read(self, index: int) -> Example:
        images, depth = render(sample_layouts(1, self._seed, index), NANO_SIZE)
        image = to_bytes(images[0]).permute(1, 2, 0).numpy()
        known = np.isfinite(depth[0].numpy())
        return checked(Example(self.names[index], image, np.where(known, depth[0].numpy(), 0), known))

    def stamp(self, index: int) -> str:
        return ""  # there are no files
