"""Pictures and their depth, frame by frame, for nodes that change pictures.

Relies on: nothing of ComfyUI's beyond what `.geometry` and `.progress` do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .geometry import as_moge, geometry_cameras, geometry_depth, needed_pictures
from .images import resize_image
from .progress import Advance, with_inner_progress
from .views import Footage


def footage_of(geometry: dict[str, Any], image: Tensor | None, fov_degrees: float = 0.0) -> Footage:
    """Depth, pictures of its size, and cameras of a geometry.

    Args:
        image: IMAGE in place of the geometry's own.
        fov_degrees: horizontal field of view in place of the geometry's cameras; 0 keeps those.

    Raises:
        ValueError: there is no depth, no picture, or a map without a valid pixel.
    """
    geometry = as_moge(geometry)
    depth, valid = geometry_depth(geometry)
    pictures = needed_pictures(geometry, image, len(depth))
    empty = (~valid.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"depth map {empty[0]} of geometry has no valid pixel, so there is nothing to see.")
    pictures = resize_image(pictures, *depth.shape[1:]).float()
    cameras = geometry_cameras(geometry, depth, fov_degrees)
    return Footage(depth, valid, pictures, cameras, float(geometry.get("enlarged", 1.0)))


def frames_of(footage: Footage, make: Callable[[Tensor, Tensor, Tensor, Advance], Tensor]) -> Tensor:
    """IMAGE of what ``make`` gives for the depth, the valid pixels and the picture of each frame.

    Its last argument takes the share of the frame that is done.
    """
    pictures = footage.pictures.expand(len(footage.depth), -1, -1, -1)
    frames = list(zip(footage.depth, footage.valid, pictures, strict=True))
    return torch.stack([make(*frame, advance) for frame, advance in with_inner_progress(frames)])
