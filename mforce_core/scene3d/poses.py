"""Where a camera stands and how it is turned, seen from another camera.

Camera axes: x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pose:
    """rotation: (3, 3), its columns the new camera's axes. position: (3,), its center, in the depth's unit."""

    rotation: Tensor
    position: Tensor


def moved(base: Pose, pose: Pose) -> Pose:
    """A pose in the axes of `base`, in those that `base` itself is given in; `relative` is the way back."""
    position = base.position.double() + base.rotation.double() @ pose.position.double()
    return Pose((base.rotation.double() @ pose.rotation.double()).float(), position.float())


def relative(base: Pose, pose: Pose) -> Pose:
    """A pose in the axes of `base`, where both are given in the same axes."""
    back = base.rotation.double().T
    return Pose(
        (back @ pose.rotation.double()).float(), (back @ (pose.position.double() - base.position.double())).float()
    )


def extrinsics_of(pose: Pose) -> Tensor:
    """(4, 4) from the axes of the picture's camera to those of the pose, as OpenCV has them."""
    matrix = torch.eye(4, dtype=torch.float64)
    inverse = pose.rotation.double().T
    matrix[:3, :3], matrix[:3, 3] = inverse, -inverse @ pose.position.double()
    return matrix.float()
