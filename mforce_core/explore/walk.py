"""Growing a scene along a camera path: each view is filled where nothing is known yet, and what is new stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..scene3d.holes import fill_from_background
from .view import Filled, Seen
from .world import Camera, World, without_slits

#: fill(seen, number): a whole view, what was known of it unchanged.
Fill = Callable[[Seen, int], Filled]


@dataclass(frozen=True)
class Step:
    """One camera of a way: what it saw before anything was made, and the whole view."""

    camera: Camera
    seen: Seen
    view: Filled

    @property
    def made(self) -> Tensor:
        """(H, W) bool: pixels that the model made."""
        return self.seen.holes if has_holes(self.seen) else torch.zeros_like(self.seen.holes)


def has_holes(seen: Seen) -> bool:
    """Whether there is something for the model to make: slits are left to the background."""
    return bool(without_slits(seen.holes).any())


def extend(world: World, camera: Camera, fill: Fill, number: int = 0) -> Step:
    """Look from a camera, fill what is missing and keep it.

    Raises:
        ValueError: the camera sees next to nothing of what is known.
    """
    seen = Seen.of(world.see(camera), f"camera {number + 1}")
    if not has_holes(seen):
        return Step(camera, seen, seen.as_it_is())
    view = fill(seen, number)
    world.add(camera, view, seen.holes)
    return Step(camera, seen, view)


def frame(world: World, camera: Camera) -> tuple[Tensor, Tensor]:
    """A frame of a clip through what is known: picture (H, W, 3) whose last holes show the background, depth (H, W)."""
    view = world.see(camera)
    return fill_from_background(view.color, view.coverage, view.depth), view.depth
