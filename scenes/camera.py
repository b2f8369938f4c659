"""Where a picture of a scene is taken from, and which part of the image plane it shows.

Poses are the usual ones of computer vision: x right, y down, z forward, for cameras and for the world alike. The
world's origin is the scene's, on the floor under the layout's own camera, so that a point (x, y, z) of the scene frame,
whose y points up, is (x, -y, z) here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .layout import HALF_VIEW, SceneLayout


@dataclass(frozen=True)
class Camera:
    """B pinhole cameras that take square pictures. Lengths are meters, angles radians."""

    position: Tensor  # (B, 3) right, up and forward in the scene frame
    heading: Tensor  # (B,) turned to the right
    pitch: Tensor  # (B,) downwards
    scale: Tensor  # (B,) side of the picture over that of a picture of 65 degrees, both at unit depth
    center: Tensor  # (B, 2) right, down: the picture's center on the image plane, in half sides of the 65 degrees

    def __len__(self) -> int:
        return len(self.pitch)

    def __getitem__(self, index: slice | Tensor) -> Camera:
        """The cameras `index` selects; an integer must be given as a slice, so that the batch axis stays."""
        return Camera(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def intrinsics(self) -> Tensor:
        """(B, 3, 3) in units of the picture's side, pixel centers at +0.5."""
        matrix = torch.eye(3).repeat(len(self), 1, 1)
        matrix[:, 0, 0] = matrix[:, 1, 1] = 0.5 / (HALF_VIEW * self.scale)
        matrix[:, :2, 2] = 0.5 - 0.5 * self.center / self.scale[:, None]
        return matrix

    def pose(self) -> Tensor:
        """(B, 4, 4): from the camera's coordinates to the world's."""
        turn_cos, turn_sin = self.heading.cos(), self.heading.sin()
        tilt_cos, tilt_sin = self.pitch.cos(), self.pitch.sin()
        right = torch.stack((turn_cos, torch.zeros_like(turn_cos), -turn_sin), dim=-1)
        down = torch.stack((-tilt_sin * turn_sin, tilt_cos, -tilt_sin * turn_cos), dim=-1)
        forward = torch.stack((tilt_cos * turn_sin, tilt_sin, tilt_cos * turn_cos), dim=-1)
        matrix = torch.eye(4).repeat(len(self), 1, 1)
        matrix[:, :3, :3] = torch.stack((right, down, forward), dim=-1)
        matrix[:, :3, 3] = self.position * torch.tensor([1.0, -1.0, 1.0])
        return matrix

    def moved(
        self, *, right: float = 0.0, up: float = 0.0, forward: float = 0.0, turn: float = 0.0, tilt: float = 0.0
    ) -> Camera:
        """The cameras after a move along the floor's axes of their own heading, and a turn.

        Args:
            right, up, forward: meters; forward is along the floor, whatever the pitch.
            turn: radians to the right.
            tilt: radians downwards.
        """
        cos, sin = self.heading.cos(), self.heading.sin()
        step = torch.stack((right * cos + forward * sin, torch.full_like(cos, up), forward * cos - right * sin), dim=-1)
        return replace(self, position=self.position + step, heading=self.heading + turn, pitch=self.pitch + tilt)

    def window(self, left: float, top: float, side: float) -> Camera:
        """The cameras of a square part of their pictures, in shares of the picture's side."""
        center = self.center + self.scale[:, None] * (2 * torch.tensor([left, top]) + side - 1)
        return replace(self, scale=self.scale * side, center=center)


def own_camera(layout: SceneLayout) -> Camera:
    """The camera that a layout comes with: 65 degrees, at its height and pitch."""
    zero = torch.zeros_like(layout.pitch)
    position = torch.stack((zero, layout.camera_height, zero), dim=1)
    return Camera(position, zero, layout.pitch, zero + 1, torch.zeros(len(layout), 2))
