"""The quads of a surface on the screen of a moved camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .camera_path import Pose
from .surface import CORNERS, Surface

_NEAREST = 1e-3  # of the median depth: nothing closer is drawn
_MIXED = 0.5  # pixels of the view by which a mixed pixel may part from the surface that it is mixed with


@dataclass(frozen=True)
class Quads:
    """Q projected quads. x, y: (4, Q) corners in samples of the view; near: (4, Q) 1 / depth in the view; ratio:
    (4, Q) depth in the picture over depth in the view, which makes places in the picture linear on screen."""

    x: Tensor
    y: Tensor
    near: Tensor
    ratio: Tensor
    pixel: Tensor


def project_quads(surface: Surface, pixels: Tensor, intrinsics: Tensor, pose: Pose, size: tuple[int, int]) -> Quads:
    """The quads of a surface that the moved camera may see.

    Args:
        pixels: row-major indices of the surface's valid pixels.
        intrinsics: (3, 3), normalized, of the picture and of the view.
        size: (height, width) of the view in samples.
    """
    height, width = surface.valid.shape
    project = _projection(intrinsics, pose)
    row, column = (pixels // width).float(), (pixels % width).float()
    parts = []
    for (step_x, step_y), corner in zip(CORNERS, surface.corners, strict=True):
        x, y = (column + (0.5 + 0.5 * step_x)) / width, (row + (0.5 + 0.5 * step_y)) / height
        parts.append(project(x, y, corner.flatten()[pixels]))
    x, y, near, ratio = (torch.stack(values) for values in zip(*parts, strict=True))
    x, y = x * size[1], y * size[0]

    # Quads that reach behind the camera, or touch it, have no picture.
    limit = surface.disparity[surface.valid].median() / _NEAREST
    seen = ((ratio > 0) & (near < limit)).all(dim=0)
    seen &= (x.amax(0) > 0) & (x.amin(0) < size[1]) & (y.amax(0) > 0) & (y.amin(0) < size[0])
    # A color mixed with the surface in front is right beside it only: elsewhere it is that surface's ghost.
    front = surface.front.flatten()[pixels]
    behind = front.nonzero().squeeze(1)
    middle = (column[behind] + 0.5) / width, (row[behind] + 0.5) / height
    own = project(*middle, surface.disparity.flatten()[pixels[behind]])
    other = project(*middle, front[behind])
    parted = torch.hypot((own[0] - other[0]) * width, (own[1] - other[1]) * height)
    seen[behind] &= parted <= _MIXED
    kept = seen.nonzero().squeeze(1)
    return Quads(x[:, kept], y[:, kept], near[:, kept], ratio[:, kept], pixels[kept])


def _projection(
    intrinsics: Tensor, pose: Pose
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """From a place in the picture (x, y normalized by its size) and its disparity to the view.

    The result is the place in the view, 1 / depth there, and depth in the picture over depth in the view.
    """
    (fx, _, cx), (_, fy, cy) = intrinsics.double().cpu().tolist()[:2]
    inverse = pose.rotation.double().cpu().T
    turn, shift = inverse.tolist(), (inverse @ pose.position.double().cpu()).tolist()

    def project(x: Tensor, y: Tensor, disparity: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ray_x, ray_y = (x - cx) / fx, (y - cy) / fy
        # The point is (ray_x, ray_y, 1) / disparity; here all of it is multiplied by the disparity.
        moved_x, moved_y, moved_z = (
            turn[axis][0] * ray_x + turn[axis][1] * ray_y + (turn[axis][2] - disparity * shift[axis])
            for axis in range(3)
        )
        return (
            fx * moved_x / moved_z + cx,
            fy * moved_y / moved_z + cy,
            disparity / moved_z,
            1.0 / moved_z,
        )

    return project
