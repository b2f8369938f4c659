"""Passes of depth maps, for the nodes that show and save them.

Relies on: ``comfy.model_management`` for the device.
"""

from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io
from torch import Tensor

from ...mforce_core.depth.edges import scaled_edge_threshold
from ...mforce_core.scene3d.passes import ambient_occlusion, normal_pass, position_pass


def occlusion_radius_input() -> io.Input:
    return io.Float.Input(
        "occlusion_radius",
        default=0.15,
        min=0.001,
        max=10.0,
        step=0.01,
        tooltip="How far away things still take light, as a fraction of the median depth.",
    )


def passes_of(
    depth: Tensor,
    valid: Tensor,
    camera: Tensor,
    extrinsics: Tensor | None,
    *,
    normals: bool,
    position: bool,
    radius: float | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Normals (H, W, 3), positions (H, W, 3) and ambient occlusion (H, W) of a map, each None if it is not wanted; CPU.

    Args:
        depth: (H, W), with valid (H, W) bool.
        camera: (3, 3), normalized by the picture's size.
        extrinsics: (4, 4), from the world to the camera; None for the camera as the world.
        radius: of the occlusion, in median depths; None for no occlusion.

    Raises:
        ValueError: the map has no valid pixel.
    """
    if not valid.any():
        raise ValueError("a depth map has no valid pixel.")
    threshold = scaled_edge_threshold(max(depth.shape))
    device = comfy.model_management.get_torch_device()
    maps, known = depth.to(device), valid.to(device)
    where = None if extrinsics is None else extrinsics.to(device)
    shade = None
    if radius is not None:
        reach = radius * float(depth[valid].median())
        shade = ambient_occlusion(maps, known, camera, radius=reach, edge_threshold=threshold).cpu()
    return (
        normal_pass(maps, known, camera, threshold).cpu() if normals else None,
        position_pass(maps, known, camera, where).cpu() if position else None,
        shade,
    )
