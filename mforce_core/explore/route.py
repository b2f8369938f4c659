"""The ways of a camera through a picture: named ones, and those between two cameras."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..scene3d.camera_path import PATHS, Move, path_moves
from ..scene3d.poses import Pose
from ..scene3d.stereo import CENTERED, eye_cameras
from ..scene3d.viewer import Shot, between
from .world import Camera

WALK_IN, STEREO = "walk in", "stereo"
#: Ways that end elsewhere than they begin: how far they have gone at a share of the way, by their name.
_STRAIGHT: dict[str, Callable[[float], Move]] = {
    WALK_IN: lambda way: Move(forward=way),
    "to the right": lambda way: Move(right=way),
    "to the left": lambda way: Move(right=-way),
    "up": lambda way: Move(up=way),
    "back": lambda way: Move(forward=-way),
}
ROUTES = (*_STRAIGHT, *(path for path in PATHS if path != "still"), STEREO)


def route_cameras(route: str, count: int, amplitude: float, own: Camera, pivot: Tensor) -> list[Camera]:
    """Cameras along a named way.

    Args:
        route: one of `ROUTES`. walk in, to the right, to the left, up, back: straight, the first camera one step from
            the picture's own. swing, orbit, dolly, spiral: clips that end where they begin, see `path_moves`. stereo:
            the left and the right eye.
        count: of cameras; stereo has two.
        amplitude: how far the way goes, as a fraction of the distance to the pivot; for stereo, between the eyes.
        own: the picture's camera.
        pivot: (3,) what it looks at.

    Raises:
        ValueError: an unknown route, or no camera.
    """
    if route not in ROUTES:
        raise ValueError(f"there is no route {route!r}; choose one of {', '.join(ROUTES)}.")
    if count < 1:
        raise ValueError(f"a way needs at least one camera, got {count}.")
    if route == STEREO:
        screen = float(pivot[2])
        return [Camera(pose, lens) for pose, lens in eye_cameras(own.lens, amplitude * screen, screen, CENTERED)]
    if route in _STRAIGHT:
        moves = [_STRAIGHT[route](amplitude * (step + 1) / count) for step in range(count)]
    else:
        moves = path_moves(route, count, amplitude)
    return [Camera(move.pose(pivot), own.lens) for move in moves]


def cameras_between(first: Shot, last: Shot, count: int, size: tuple[int, int]) -> list[Camera]:
    """Cameras on the way from a shot to another, the last of which is that one; size: (height, width) of views."""
    shots = [between(first, last, (step + 1) / count) for step in range(count)]
    return [Camera(shot.pose, shot.lens(*size)) for shot in shots]


def cameras_of(lenses: Tensor, extrinsics: Tensor) -> list[Camera]:
    """Cameras of a file, lenses (F, 3, 3) and extrinsics (F, 4, 4) from the world to the camera."""
    back = torch.linalg.inv(extrinsics.double()).float()
    return [Camera(Pose(matrix[:3, :3], matrix[:3, 3]), lens) for matrix, lens in zip(back, lenses, strict=True)]
