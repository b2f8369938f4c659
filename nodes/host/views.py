"""Rendering the frames of a camera move inside ComfyUI: on its device, with its progress bar, until it is interrupted.

Relies on: ``comfy.utils.ProgressBar`` and ``comfy.model_management`` (device, interruption).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ...mforce_core.scene3d.camera_path import Move
from ...mforce_core.scene3d.point_cloud import scaled_edge_threshold

_MIDDLE = 0.1  # of the picture's size: the area whose median depth the camera aims at


@dataclass(frozen=True)
class Footage:
    """What the camera looks at: one map for a whole clip, or one per frame.

    Attributes:
        depth: (B, H, W).
        valid: (B, H, W) bool.
        pictures: (B or 1, H, W, 3) in [0, 1].
        cameras: (B, 3, 3), normalized by the picture's size.
    """

    depth: Tensor
    valid: Tensor
    pictures: Tensor
    cameras: Tensor


def render_frames(
    footage: Footage,
    moves: Sequence[Move],
    *,
    edge_threshold: float,
    edge_softness: int,
    samples: int,
    fill: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One frame per move.

    Args:
        edge_threshold: relative jump of depth at which a surface ends; 0 chooses by the picture's size.
        edge_softness: width in pixels of the soft edges of the depth maps.
        samples: along the side of a pixel.
        fill: continue the background into the holes.

    Returns:
        pictures (F, H, W, 3); holes (F, H, W), 1 where a pixel is not wholly covered; depth (F, H, W), 0 in holes.

    Raises:
        ValueError: a map without a valid pixel.
    """
    # Imported here: the renderer's modules are many, and ComfyUI's start need not wait for them.
    from ...mforce_core.scene3d.holes import fill_from_background
    from ...mforce_core.scene3d.render_view import render_view
    from ...mforce_core.scene3d.surface import build_surface

    height, width = footage.depth.shape[1:]
    device = comfy.model_management.get_torch_device()
    # Apple's GPUs lack the 64-bit minimum that the z-buffer needs.
    device = torch.device("cpu") if device.type == "mps" else device
    progress = comfy.utils.ProgressBar(len(moves))
    count = len(moves)
    pictures = torch.empty(count, height, width, 3)
    holes, depths = torch.empty(count, height, width), torch.empty(count, height, width)
    for frame, move in enumerate(moves):
        comfy.model_management.throw_exception_if_processing_interrupted()
        if frame < len(footage.depth):  # else the last map stays
            depth, valid, camera = footage.depth[frame], footage.valid[frame], footage.cameras[frame]
            if not valid.any():
                raise ValueError(f"depth map {frame} of geometry has no valid pixel, so there is nothing to see.")
            surface = build_surface(
                depth.to(device),
                valid.to(device),
                edge_threshold=edge_threshold or scaled_edge_threshold(max(height, width)),
                softness=edge_softness,
            )
            picture = footage.pictures[min(frame, len(footage.pictures) - 1)].to(device)
            pivot = middle_point(depth, valid, camera)
        view = render_view(surface, picture, camera, move.pose(pivot), samples=samples)
        if fill:
            pictures[frame] = fill_from_background(view.color, view.coverage, view.depth)
        else:
            pictures[frame] = view.color * view.coverage[..., None]
        holes[frame] = (view.coverage < 1.0).float()
        depths[frame] = view.depth
        progress.update(1)
    return pictures, holes, depths


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
