"""Raw depth between nodes: core's MOGE_GEOMETRY, so that core's geometry nodes work on it too.

A dictionary with ``depth`` (B, H, W), ``mask`` (B, H, W) bool, ``points`` (B, H, W, 3) in camera axes,
``intrinsics`` (B, 3, 3) normalized by the picture's size, and ``image`` (B, H, W, 3) in [0, 1]. Core's Depth Anything 3
has a dictionary of its own, which is taken wherever this one is.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate

from ...mforce_core.depth.codec import valid_pixels
from ...mforce_core.scene3d.point_cloud import camera_points, intrinsics_from_fov

Geometry = io.Custom("MOGE_GEOMETRY")
DA3Geometry = io.Custom("DA3_GEOMETRY")

_SOURCES = "Depth Detokenize, MF Load Depth, Run MoGe Inference or Run Depth Anything 3"


def distance_input(name: str, tooltip: str) -> io.Input:
    """A widget for a depth in its own unit; 0 leaves it to the map."""
    return io.Float.Input(name, default=0.0, min=0.0, max=1e9, step=0.01, round=False, tooltip=tooltip)


def make_geometry(depth: Tensor, valid: Tensor, image: Tensor, fov_degrees: float) -> dict[str, Tensor]:
    """MOGE_GEOMETRY of depth (B, H, W) seen by one pinhole camera.

    Args:
        valid: (B, H, W) bool; elsewhere depth and points are infinite, which is how core marks them.
        image: (B, H, W, 3) in [0, 1].
        fov_degrees: horizontal field of view.
    """
    batch, height, width = depth.shape
    intrinsics = intrinsics_from_fov(height, width, fov_degrees)
    return geometry_of_cameras(depth, valid, image, intrinsics.repeat(batch, 1, 1))


def geometry_of_cameras(depth: Tensor, valid: Tensor, image: Tensor, intrinsics: Tensor) -> dict[str, Tensor]:
    """The same for depth seen by a camera each, ``intrinsics`` (B, 3, 3) normalized by the picture's size."""
    points = torch.stack([camera_points(one, camera) for one, camera in zip(depth, intrinsics, strict=True)])
    infinite = torch.full_like(depth, torch.inf)
    return {
        "depth": torch.where(valid, depth, infinite),
        "mask": valid,
        "points": torch.where(valid[..., None], points, infinite[..., None]),
        "intrinsics": intrinsics,
        "image": image,
    }


def as_moge(node: str, geometry: dict[str, Any]) -> dict[str, Any]:
    """A MOGE_GEOMETRY as it is, a DA3_GEOMETRY with ``mask`` and normalized ``intrinsics`` like one.

    Sky is not valid in it. The camera is left out where Depth Anything 3 made none up.

    Raises:
        ValueError: naming ``node``, if the geometry has no depth.
    """
    if "depth" not in geometry:
        raise ValueError(f"{node}: the geometry has no depth; connect {_SOURCES}.")
    if "mode" not in geometry:
        return geometry
    like = {"depth": geometry["depth"], "image": geometry["image"]}
    if "sky" in geometry:
        like["mask"] = geometry["sky"] < 0.5
    if "intrinsics" in geometry:
        # In pixels of the size that the network worked at, whose middle is the principal point.
        camera = geometry["intrinsics"][0].float()
        if (camera[:, :2, 2] > 1).all():
            like["intrinsics"] = camera / torch.cat([2 * camera[:, :2, 2:], torch.ones_like(camera[:, 2:, 2:])], dim=1)
    return like


def geometry_depth(node: str, geometry: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Depth (B, H, W) float32 and its valid pixels, on the CPU.

    Raises:
        ValueError: naming ``node``, if the geometry has no depth.
    """
    geometry = as_moge(node, geometry)
    depth = geometry["depth"].float().cpu()
    mask = geometry.get("mask")
    return depth, valid_pixels(depth, None if mask is None else mask.cpu() > 0.5)


def raw_depth(node: str, depth: Any, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Depth (B, H, W) float32 and its valid pixels, on the CPU, of a geometry or an IMAGE that holds raw depth.

    Args:
        valid: MASK that leaves further pixels out.

    Raises:
        ValueError: naming ``node``, if there is no depth or the mask's batch is another one.
    """
    if isinstance(depth, dict):
        maps, usable = geometry_depth(node, depth)
    else:
        maps = gray(depth).cpu()
        usable = valid_pixels(maps, opaque(depth).cpu())
    return maps, usable if valid is None else usable & match_mask(node, valid, maps)


def gray(image: Tensor) -> Tensor:
    """(B, H, W) float32 of an IMAGE: the mean of its colors, exact where they are equal."""
    colors = image[..., : 1 if image.shape[-1] < 3 else 3].float()
    first = colors[..., 0]
    return torch.where((colors == first[..., None]).all(-1), first, colors.mean(-1))


def opaque(image: Tensor) -> Tensor:
    """(B, H, W) bool: False on the transparent pixels of an IMAGE."""
    if image.shape[-1] in (2, 4):
        return image[..., -1] > 0.5
    return torch.ones(image.shape[:-1], dtype=torch.bool, device=image.device)


def match_mask(node: str, mask: Tensor, maps: Tensor) -> Tensor:
    """MASK (B or 1, H', W') as bool of the maps' shape (B, H, W).

    Raises:
        ValueError: naming ``node``, for another number of masks.
    """
    mask = mask.reshape(-1, *mask.shape[-2:])
    if mask.shape[0] not in (1, maps.shape[0]):
        raise ValueError(
            f"{node}: there are {mask.shape[0]} valid masks for {maps.shape[0]} depth maps; give one, or one for each."
        )
    if mask.shape[-2:] != maps.shape[-2:]:
        mask = interpolate(mask[:, None].float(), maps.shape[-2:], mode="nearest-exact")[:, 0]
    return (mask > 0.5).expand(maps.shape).to(maps.device)


def match_image(node: str, image: Tensor, maps: Tensor) -> Tensor:
    """RGB pictures (B or 1, H', W', 3) as (B, H, W, 3) beside maps (B, H, W), on the CPU.

    Raises:
        ValueError: naming ``node``, for another number of pictures.
    """
    if image.shape[0] not in (1, maps.shape[0]):
        raise ValueError(
            f"{node}: there are {image.shape[0]} images for {maps.shape[0]} depth maps; give one, or one for each."
        )
    return resize_image(image.cpu(), *maps.shape[1:]).expand(*maps.shape, 3)


def resize_image(image: Tensor, height: int, width: int) -> Tensor:
    """IMAGE (B, H, W, 3) to another size."""
    if image.shape[1:3] == (height, width):
        return image
    scaled = interpolate(image.movedim(-1, 1).float(), (height, width), mode="bilinear", antialias=True)
    return scaled.clamp(0.0, 1.0).movedim(1, -1)
