"""Two eyes on a depth map: cameras side by side whose pictures meet at the screen's distance, and their layouts."""

from __future__ import annotations

import torch
from torch import Tensor

from .poses import Pose

#: Both eyes around the picture's camera, or the picture itself for one of them.
CENTERED, LEFT_IS_PICTURE = EYES = ("both rendered", "left is the picture")
SIDE_BY_SIDE, HALF_SIDE_BY_SIDE, OVER_UNDER, HALF_OVER_UNDER, ANAGLYPH = LAYOUTS = (
    "side by side",
    "half side by side",
    "over under",
    "half over under",
    "anaglyph (red cyan)",
)


def eye_cameras(intrinsics: Tensor, baseline: float, screen: float, eyes: str) -> list[tuple[Pose, Tensor]]:
    """Pose and lens of the left and the right eye.

    The axes stay parallel and the lenses are shifted, so that what is at the screen's distance lies on the same place
    in both pictures and nothing is moved up or down.

    Args:
        intrinsics: (3, 3) of the picture, normalized by its size.
        baseline: between the eyes, in the depth's unit.
        screen: depth at which both pictures agree.
        eyes: one of `EYES`.
    """
    places = (-baseline / 2, baseline / 2) if eyes == CENTERED else (0.0, baseline)
    cameras = []
    for x in places:
        lens = intrinsics.clone()
        lens[0, 2] += intrinsics[0, 0] * x / screen
        cameras.append((Pose(torch.eye(3), torch.tensor([x, 0.0, 0.0])), lens))
    return cameras


def compose(left: Tensor, right: Tensor, layout: str) -> Tensor:
    """Both pictures (..., H, W, C) in one, in one of `LAYOUTS`; the left one on the left, on top, or in red."""
    if layout == ANAGLYPH:
        return torch.cat([left[..., :1], right[..., 1:]], dim=-1)
    across = layout in (SIDE_BY_SIDE, HALF_SIDE_BY_SIDE)
    dim = -2 if across else -3
    if layout in (HALF_SIDE_BY_SIDE, HALF_OVER_UNDER):
        left, right = (_halved(eye, dim) for eye in (left, right))
    return torch.cat([left, right], dim=dim)


def _halved(picture: Tensor, dim: int) -> Tensor:
    """Means of two pixels each along a dimension; an odd last one stands for itself."""
    side = picture.shape[dim]
    if side % 2:
        picture = torch.cat([picture, picture.narrow(dim, side - 1, 1)], dim=dim)
    return picture.unflatten(dim, (-1, 2)).mean(dim=dim)
