"""Cameras of 3D viewers, for views of a depth map: where they stand in the scene of the picture, and their lens.

A camera is what ComfyUI calls LOAD3D_CAMERA, three.js's camera as numbers: ``position`` and ``target`` ({x, y, z}),
``quaternion`` ({x, y, z, w}, the camera's axes in the world, x right, y up, looking along -z), ``fov`` (vertical, in
degrees), ``zoom`` (a factor of the focal length) and ``cameraType``. The world is y up, the picture's own camera at its
origin looking along -z, in the unit of the depth; a viewer of point clouds moves and scales it, see `Stage`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .poses import Pose, moved

#: The vertical field of view of ComfyUI's viewer, for cameras that do not say theirs.
VIEWER_FOV_DEGREES = 35.0
# From the axes of a camera, y down and z forward, to those of the viewer, y up and z backward, and back.
_FLIP = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)


@dataclass(frozen=True)
class Stage:
    """Where a viewer puts a scene: places are (world - center) / radius there."""

    center: Tensor
    radius: float = 1.0


#: A viewer that shows the scene as it is: ComfyUI's for meshes and splats.
AS_IT_IS = Stage(torch.zeros(3))


def cloud_stage(points: Tensor) -> Stage:
    """How ComfyUI's viewer shows a cloud (M, 3): the bounding box's center at 0, the farthest point at distance 1.

    This is three.js's ``computeBoundingSphere`` followed by a shift and a scale.
    """
    points = points.double()
    center = (points.amin(dim=0) + points.amax(dim=0)) / 2
    return Stage(center, float((points - center).norm(dim=1).max().clamp(min=1e-12)))


@dataclass(frozen=True)
class Shot:
    """A pose, how far in front of it the camera aims, and the focal length in heights of the view."""

    pose: Pose
    distance: float
    focal: float

    def lens(self, height: int, width: int) -> Tensor:
        """(3, 3) camera matrix of square pixels, normalized by the view's size."""
        return torch.tensor([[self.focal * height / width, 0.0, 0.5], [0.0, self.focal, 0.5], [0.0, 0.0, 1.0]])


def shot_of(camera: Mapping[str, Any], stage: Stage) -> Shot:
    """The shot of a viewer's camera that looks at a stage.

    Raises:
        ValueError: the camera has no position, or its numbers cannot be used, or it has no perspective.
    """
    if str(camera.get("cameraType", "perspective")).lower().startswith("ortho"):
        raise ValueError("the camera is orthographic; switch the viewer to perspective.")
    position, target = _vector(camera, "position", "xyz"), _vector(camera, "target", "xyz")
    if position is None:
        raise ValueError("the camera has no position; connect camera_info of Preview Point Cloud or Load 3D.")
    turn = _vector(camera, "quaternion", "xyzw")
    if turn is not None and turn.norm() > 1e-9:
        from scipy.spatial.transform import Rotation  # here, because it takes long to import

        axes = torch.from_numpy(Rotation.from_quat(turn.numpy()).as_matrix())
    elif target is not None and (target - position).norm() > 1e-12:
        axes = _look(position, target)
    else:
        raise ValueError("the camera does not say where it looks: it has neither a quaternion nor a target.")
    distance = 1.0 if target is None else float((target - position).norm())
    try:
        fov, zoom = (float(camera.get(name) or usual) for name, usual in (("fov", VIEWER_FOV_DEGREES), ("zoom", 1.0)))
    except (TypeError, ValueError):
        raise ValueError("the camera's fov and zoom are not numbers.") from None
    if not (0.0 < fov < 180.0 and 0.0 < zoom < math.inf):
        raise ValueError(f"the camera has a field of view of {fov:g} degrees and a zoom of {zoom:g}.")
    place = _FLIP * (position * stage.radius + stage.center.double())
    pose = Pose((_FLIP[:, None] * axes * _FLIP).float(), place.float())
    return Shot(pose, max(distance, 1e-6) * stage.radius, 0.5 * zoom / math.tan(math.radians(fov) / 2))


def between(first: Shot, last: Shot, share: float) -> Shot:
    """The shot on the way from one to another; share: 0 is the first, 1 the last.

    Places, distances and focal lengths change evenly, the last two by factors; the camera turns evenly about one axis.
    """
    from scipy.spatial.transform import Rotation, Slerp  # here, because it takes long to import

    turns = Rotation.from_matrix(torch.stack([first.pose.rotation, last.pose.rotation]).double().numpy())
    rotation = torch.from_numpy(Slerp([0.0, 1.0], turns)(share).as_matrix())
    position = torch.lerp(first.pose.position, last.pose.position, share)
    distance, focal = (
        math.exp((1 - share) * math.log(a) + share * math.log(b))
        for a, b in ((first.distance, last.distance), (first.focal, last.focal))
    )
    return Shot(Pose(rotation.float(), position), distance, focal)


def seen_by(shot: Shot, extrinsics: Tensor) -> Shot:
    """A shot in the world, in the axes of a camera with these extrinsics (4, 4), from the world to the camera."""
    rotation, shift = extrinsics[:3, :3].float(), extrinsics[:3, 3].float()
    return replace(shot, pose=moved(Pose(rotation, shift), shot.pose))


def _vector(camera: Mapping[str, Any], name: str, axes: str) -> Tensor | None:
    given = camera.get(name)
    if not given:
        return None
    try:
        vector = torch.tensor([float(given[axis]) for axis in axes], dtype=torch.float64)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"the camera's {name} is not {', '.join(axes)}.") from None
    if not vector.isfinite().all():
        raise ValueError(f"the camera's {name} is not finite.")
    return vector


def _look(position: Tensor, target: Tensor) -> Tensor:
    """(3, 3) axes of a camera that looks at a target with y up."""
    back = F.normalize(position - target, dim=0)
    up = torch.tensor([0.0, 1.0, 0.0] if abs(float(back[1])) < 0.999 else [0.0, 0.0, 1.0], dtype=torch.float64)
    right = F.normalize(torch.linalg.cross(up, back), dim=0)
    return torch.stack([right, torch.linalg.cross(back, right), back], dim=1)
