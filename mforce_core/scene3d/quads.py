"""The quads of a surface on the screen of a moved camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .poses import Pose
from .surface import CORNERS, Surface

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


class Projection:
    """From a place in the picture (x, y normalized by its size) and its disparity to the view of a moved camera.

    Args:
        intrinsics: (3, 3), of the picture, normalized by its size.
        lens: (3, 3), of the view, normalized.
        pose: of the view's camera.
    """

    def __init__(self, intrinsics: Tensor, lens: Tensor, pose: Pose) -> None:
        (self.fx, _, self.cx), (_, self.fy, self.cy) = intrinsics.double().cpu().tolist()[:2]
        (self.lens_x, _, self.middle_x), (_, self.lens_y, self.middle_y) = lens.double().cpu().tolist()[:2]
        inverse = pose.rotation.double().cpu().T
        self.turn, self.shift = inverse.tolist(), (inverse @ pose.position.double().cpu()).tolist()

    def __call__(self, x: Tensor, y: Tensor, disparity: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The place in the view, 1 / depth there, and depth in the picture over depth in the view."""
        ray_x, ray_y = (x - self.cx) / self.fx, (y - self.cy) / self.fy
        # The point is (ray_x, ray_y, 1) / disparity; here all of it is multiplied by the disparity.
        moved_x, moved_y, moved_z = (
            row[0] * ray_x + row[1] * ray_y + (row[2] - disparity * shift)
            for row, shift in zip(self.turn, self.shift, strict=True)
        )
        ratio = 1.0 / moved_z
        return (
            self.lens_x * moved_x * ratio + self.middle_x,
            self.lens_y * moved_y * ratio + self.middle_y,
            disparity * ratio,
            ratio,
        )


def project_quads(surface: Surface, pixels: Tensor, project: Projection, size: tuple[int, int], limit: float) -> Quads:
    """The quads of a surface that the moved camera may see.

    Args:
        pixels: row-major indices of the surface's valid pixels.
        size: (height, width) of the view in samples.
        limit: 1 / depth in the view from which on nothing is drawn.
    """
    height, width = surface.valid.shape
    row, column = (pixels // width).float(), (pixels % width).float()
    parts = []
    for (step_x, step_y), corner in zip(CORNERS, surface.corners, strict=True):
        x, y = (column + (0.5 + 0.5 * step_x)) / width, (row + (0.5 + 0.5 * step_y)) / height
        parts.append(project(x, y, corner.flatten()[pixels]))
    x, y, near, ratio = (torch.stack(values) for values in zip(*parts, strict=True))
    x, y = x * size[1], y * size[0]

    # Quads that reach behind the camera, or touch it, have no picture.
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
    if seen.all():
        return Quads(x, y, near, ratio, pixels)
    kept = seen.nonzero().squeeze(1)
    x, y, near, ratio = (values.index_select(1, kept) for values in (x, y, near, ratio))
    return Quads(x, y, near, ratio, pixels[kept])
