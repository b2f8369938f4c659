"""Moves of a camera relative to what the picture shows, and paths that end where they begin.

Camera axes: x right, y down, z forward. The pose after a move is as the camera that took the picture sees it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .poses import Pose

#: Share of the picture's size, to either side of its middle, whose median depth a camera aims at.
_MIDDLE = 0.1

PATHS = ("still", "swing", "orbit", "dolly", "spiral")


@dataclass(frozen=True)
class Move:
    """How far a camera has gone from where the picture was taken.

    orbit_right, orbit_up: degrees about the pivot, which stays where it is in the view. right, up, forward:
    fractions of the distance to the pivot, along the axes of the camera after the orbit. yaw (right), pitch (up)
    and roll (clockwise): degrees that the camera turns where it stands.
    """

    orbit_right: float = 0.0
    orbit_up: float = 0.0
    right: float = 0.0
    up: float = 0.0
    forward: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def pose(self, pivot: Tensor) -> Pose:
        """The pose after this move; pivot: (3,) point in camera axes, in the depth's unit."""
        pivot = pivot.double().cpu()
        aim = _turn(-self.orbit_right, -self.orbit_up, 0.0)
        step = torch.tensor([self.right, -self.up, self.forward], dtype=torch.float64) * pivot.norm()
        position = pivot - aim @ pivot + aim @ step
        return Pose((aim @ _turn(self.yaw, self.pitch, self.roll)).float(), position.float())


def path_moves(path: str, frames: int, amplitude: float) -> list[Move]:
    """The moves of a clip; the frame after the last is the first again.

    Args:
        path: one of `PATHS`. swing: from side to side. orbit: once around on a flat ellipse. dolly: forward and
            back. spiral: around in a growing and shrinking circle, and closer. All but dolly keep the pivot in
            its place.
        frames: length of the clip; 1 for a still.
        amplitude: the greatest way from the center, as a fraction of the distance to the pivot.

    Raises:
        ValueError: an unknown path, or no frame.
    """
    if path not in PATHS:
        raise ValueError(f"there is no camera path {path!r}; choose one of {', '.join(PATHS)}.")
    if frames < 1:
        raise ValueError(f"a clip needs at least one frame, got {frames}.")
    if path == "still":
        return [Move()] * frames
    angle = math.degrees(math.atan(amplitude))
    return [_on_path(path, 2.0 * math.pi * frame / frames, angle, amplitude) for frame in range(frames)]


def _on_path(path: str, phase: float, angle: float, amplitude: float) -> Move:
    if path == "swing":
        return Move(orbit_right=angle * math.sin(phase))
    if path == "orbit":
        return Move(orbit_right=angle * math.sin(phase), orbit_up=0.5 * angle * math.cos(phase))
    grown = 0.5 * (1.0 - math.cos(phase))
    if path == "dolly":
        return Move(forward=amplitude * grown)
    return Move(
        orbit_right=angle * grown * math.sin(2.0 * phase),
        orbit_up=0.5 * angle * grown * math.cos(2.0 * phase),
        forward=0.5 * amplitude * grown,
    )


def combine(base: Move, offset: Move) -> Move:
    """Both moves together, as the sum of what each says."""
    return Move(*(getattr(base, name) + getattr(offset, name) for name in Move.__dataclass_fields__))


def _turn(yaw: float, pitch: float, roll: float) -> Tensor:
    """(3, 3) float64: axes of a camera that has turned right by yaw, then up by pitch, then clockwise by roll."""
    a, b, c = (math.radians(angle) for angle in (yaw, pitch, roll))
    about_y = [[math.cos(a), 0.0, math.sin(a)], [0.0, 1.0, 0.0], [-math.sin(a), 0.0, math.cos(a)]]
    about_x = [[1.0, 0.0, 0.0], [0.0, math.cos(b), -math.sin(b)], [0.0, math.sin(b), math.cos(b)]]
    about_z = [[math.cos(c), -math.sin(c), 0.0], [math.sin(c), math.cos(c), 0.0], [0.0, 0.0, 1.0]]
    yawed, pitched, rolled = (torch.tensor(matrix, dtype=torch.float64) for matrix in (about_y, about_x, about_z))
    return yawed @ pitched @ rolled


def middle_point(depth: Tensor, valid: Tensor, intrinsics: Tensor) -> Tensor:
    """The point (3,) in camera axes behind the picture's center, at the median depth around there.

    Args:
        depth: (H, W), with valid (H, W) bool.
        intrinsics: (3, 3), normalized by the picture's size.
    """
    height, width = depth.shape
    rows, columns = (slice(int(side * (0.5 - _MIDDLE)), int(side * (0.5 + _MIDDLE)) + 1) for side in (height, width))
    middle = depth[rows, columns][valid[rows, columns]]
    distance = (middle if len(middle) else depth[valid]).median()
    focal, center = intrinsics.diagonal()[:2], intrinsics[:2, 2]
    return torch.cat([(0.5 - center) / focal, torch.ones(1)]) * distance
