"""Growing a scene along a way of cameras: each view is filled where nothing is known yet, and what is new stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..scene3d.holes import fill_from_background
from .view import Filled, Seen
from .world import Camera, World

#: fill(seen, number): a whole view, what was known of it unchanged.
Fill = Callable[[Seen, int], Filled]

#: A view with a smaller share of holes is as good as whole: the background fills it.
_FEW_HOLES = 2e-4


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
    """Whether there is something for the model to make."""
    return float(seen.holes.float().mean()) > _FEW_HOLES


def extend(world: World, camera: Camera, fill: Fill, number: int = 0, *, samples: int = 2) -> Step:
    """Look from a camera, fill what is missing and keep it.

    Raises:
        ValueError: the camera sees next to nothing of what is known.
    """
    seen = Seen.of(world.see(camera, samples=samples), f"camera {number + 1}")
    if not has_holes(seen):
        return Step(camera, seen, Filled(seen.color, seen.depth))
    view = fill(seen, number)
    world.add(camera, view, seen.holes)
    return Step(camera, seen, view)


def walk(world: World, cameras: Sequence[Camera], fill: Fill, *, samples: int = 2) -> list[Step]:
    """Extend a world by one camera after the other."""
    return [extend(world, camera, fill, number, samples=samples) for number, camera in enumerate(cameras)]


def frame(world: World, camera: Camera, *, samples: int = 2) -> tuple[Tensor, Tensor]:
    """A frame of a clip through what is known: picture (H, W, 3) whose last holes show the background, depth (H, W)."""
    view = world.see(camera, samples=samples)
    return fill_from_background(view.color, view.coverage, view.depth), view.depth
