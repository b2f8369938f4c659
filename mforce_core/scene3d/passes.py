"""Passes for compositing from a depth map: normals, positions, and the light that corners lose."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .point_cloud import camera_points, surface_normals

# Directions and steps in which ambient occlusion looks around.
_DIRECTIONS, _STEPS = 12, 8
# Sines of elevations below this are noise of the depth, not occlusion.
_BIAS = 0.05
# Pixels that the search goes at most, as a fraction of the picture's longer side.
_REACH = 0.15


def normal_pass(depth: Tensor, valid: Tensor, intrinsics: Tensor, edge_threshold: float) -> Tensor:
    """(H, W, 3) unit normals in OpenGL's camera axes: x right, y up, z toward the camera; 0 without depth."""
    normals = surface_normals(depth, intrinsics, valid=valid, edge_threshold=edge_threshold)
    return torch.where(valid[..., None], normals * normals.new_tensor([1.0, -1.0, -1.0]), 0.0)


def position_pass(depth: Tensor, valid: Tensor, intrinsics: Tensor, extrinsics: Tensor | None = None) -> Tensor:
    """(H, W, 3) places in the world, x right, y up, z backward, as Nuke, Maya and glTF have them; 0 without depth.

    Args:
        extrinsics: (4, 4), from the world to the camera in OpenCV's axes; None where the camera is the world's origin.
    """
    points = camera_points(torch.where(valid, depth, 0.0), intrinsics)
    if extrinsics is not None:
        points = (points - extrinsics[:3, 3]) @ extrinsics[:3, :3]
    return torch.where(valid[..., None], points * points.new_tensor([1.0, -1.0, -1.0]), 0.0)


def ambient_occlusion(
    depth: Tensor, valid: Tensor, intrinsics: Tensor, *, radius: float, edge_threshold: float
) -> Tensor:
    """(H, W) share of the light from all sides that reaches a pixel, 1 in the open; 1 where there is no depth.

    Horizon-based (Bavoil, Sainz and Dimitrov 2008): in each of some directions, the highest elevation above the tangent
    plane within the radius, less what is farther away.

    Args:
        radius: how far away things still take light, in the depth's unit.
    """
    height, width = depth.shape
    points = camera_points(torch.where(valid, depth, 1.0), intrinsics)
    normals = surface_normals(depth, intrinsics, valid=valid, edge_threshold=edge_threshold)
    places = points.movedim(-1, 0).flatten(1)
    reach = radius * float(intrinsics[0, 0]) * width / points[..., 2]
    reach = reach.clamp(max=_REACH * max(height, width))
    rows, columns = torch.meshgrid(
        *(torch.arange(side, device=depth.device) for side in (height, width)), indexing="ij"
    )
    total = torch.zeros_like(depth)
    for direction in range(_DIRECTIONS):
        angle = 2 * math.pi * (direction + 0.5) / _DIRECTIONS
        horizon = torch.zeros_like(depth)
        for step in range(1, _STEPS + 1):
            far = (reach * (step / _STEPS)).clamp(min=1.0 * step)
            x = (columns + (far * math.cos(angle)).round().long()).clamp(0, width - 1)
            y = (rows + (far * math.sin(angle)).round().long()).clamp(0, height - 1)
            other = y * width + x
            way = places.index_select(1, other.flatten()).unflatten(1, depth.shape).movedim(0, -1) - points
            distance = way.norm(dim=-1)
            elevation = (way * normals).sum(-1) / distance.clamp(min=1e-12)
            fade = (1.0 - (distance / radius).square()).clamp(min=0.0)
            seen = valid.flatten()[other] & (distance > 0)
            horizon = torch.maximum(horizon, torch.where(seen, (elevation - _BIAS).clamp(min=0.0) * fade, 0.0))
        total += horizon
    light = 1.0 - total / (_DIRECTIONS * (1.0 - _BIAS))
    return torch.where(valid, _smooth(light.clamp(0.0, 1.0), depth, valid), 1.0)


def _smooth(values: Tensor, depth: Tensor, valid: Tensor) -> Tensor:
    """Mean over 3x3 pixels that are about as far away."""
    around = F.unfold(F.pad(values[None, None], (1, 1, 1, 1), mode="replicate"), 3)
    near = F.unfold(F.pad(torch.where(valid, depth, 0.0)[None, None], (1, 1, 1, 1), mode="replicate"), 3)
    same = ((near - depth.flatten()).abs() <= 0.05 * depth.flatten()).float()
    return ((around * same).sum(1) / same.sum(1).clamp(min=1e-9)).view_as(values)
