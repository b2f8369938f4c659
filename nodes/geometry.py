"""Raw depth between nodes: core's MOGE_GEOMETRY, so that core's geometry nodes work on it too.

A dictionary with ``depth`` (B, H, W), ``mask`` (B, H, W) bool, ``points`` (B, H, W, 3) in camera axes,
``intrinsics`` (B, 3, 3) normalised by the picture's size, and ``image`` (B, H, W, 3) in [0, 1].
"""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate

from ..mforce_core.depth_codec import valid_pixels
from ..mforce_core.point_cloud import camera_points, intrinsics_from_fov

Geometry = io.Custom("MOGE_GEOMETRY")


def make_geometry(depth: Tensor, valid: Tensor, image: Tensor, fov_degrees: float) -> dict[str, Tensor]:
    """MOGE_GEOMETRY of depth (B, H, W) seen by one pinhole camera.

    Args:
        valid: (B, H, W) bool; elsewhere depth and points are infinite, which is how core marks them.
        image: (B, H, W, 3) in [0, 1].
        fov_degrees: horizontal field of view.
    """
    batch, height, width = depth.shape
    intrinsics = intrinsics_from_fov(height, width, fov_degrees)
    points = torch.stack([camera_points(one, intrinsics) for one in depth])
    infinite = torch.full_like(depth, torch.inf)
    return {
        "depth": torch.where(valid, depth, infinite),
        "mask": valid,
        "points": torch.where(valid[..., None], points, infinite[..., None]),
        "intrinsics": intrinsics.repeat(batch, 1, 1),
        "image": image,
    }


def geometry_depth(node: str, geometry: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Depth (B, H, W) float32 and its valid pixels, on the CPU.

    Raises:
        ValueError: naming ``node``, if the geometry has no depth.
    """
    if "depth" not in geometry:
        raise ValueError(f"{node}: the geometry has no depth; connect Depth Detokenize or Run MoGe Inference.")
    depth = geometry["depth"].float().cpu()
    mask = geometry.get("mask")
    return depth, valid_pixels(depth, None if mask is None else mask.cpu() > 0.5)


def resize_image(image: Tensor, height: int, width: int) -> Tensor:
    """IMAGE (B, H, W, 3) to another size."""
    if image.shape[1:3] == (height, width):
        return image
    scaled = interpolate(image.movedim(-1, 1).float(), (height, width), mode="bilinear", antialias=True)
    return scaled.clamp(0.0, 1.0).movedim(1, -1)
