"""Raw depth between nodes: core's MOGE_GEOMETRY, so that core's geometry nodes work on it too.

A dictionary with ``depth`` (B, H, W), ``mask`` (B, H, W) bool, ``points`` (B, H, W, 3) in camera axes,
``intrinsics`` (B, 3, 3) normalized by the picture's size, and ``image`` (B, H, W, 3) in [0, 1]. Where the maps were
seen from several places, ``extrinsics`` (B, 4, 4) takes points of a common world into each camera's axes;
where they were enlarged, ``enlarged`` is by how much. Core's Depth Anything 3 has a dictionary of its own, which is
accepted wherever this one is.

Relies on: ``comfy_extras/nodes_moge.py`` and ``nodes_depth_anything_3.py`` for the keys of the two dictionaries.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...mforce_core.depth.codec import valid_pixels
from ...mforce_core.release import FOV_DEGREES
from ...mforce_core.scene3d.point_cloud import camera_points, intrinsics_from_fov
from .images import check_gray, match_mask, opaque_pixels, to_gray, to_rgb

Geometry = io.Custom("MOGE_GEOMETRY")
DA3Geometry = io.Custom("DA3_GEOMETRY")

_SOURCES = "Depth Detokenize, MF Load Depth, Run MoGe Inference or Run Depth Anything 3"


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
    """The same for one camera per map, ``intrinsics`` (B, 3, 3) normalized by the picture's size."""
    points = torch.stack([camera_points(one, camera) for one, camera in zip(depth, intrinsics, strict=True)])
    infinite = torch.full_like(depth, torch.inf)
    return {
        "depth": torch.where(valid, depth, infinite),
        "mask": valid,
        "points": torch.where(valid[..., None], points, infinite[..., None]),
        "intrinsics": intrinsics,
        "image": image,
    }


def as_moge(geometry: dict[str, Any]) -> dict[str, Any]:
    """A MOGE_GEOMETRY unchanged, or a DA3_GEOMETRY with a mask, normalized intrinsics and extrinsics like one.

    Its sky is not valid. The cameras are left out where Depth Anything 3 estimated none.

    Raises:
        ValueError: the geometry has no depth.
    """
    if "depth" not in geometry:
        raise ValueError(f"the geometry has no depth; connect {_SOURCES}.")
    if "mode" not in geometry:
        return geometry
    like: dict[str, Any] = {key: geometry[key] for key in ("depth", "image", "enlarged") if key in geometry}
    if "sky" in geometry:
        like["mask"] = geometry["sky"] < 0.5
    if "intrinsics" in geometry:
        # In pixels of the network's working size, whose center is the principal point.
        camera = geometry["intrinsics"][0].float()
        if (camera[:, :2, 2] > 1).all():
            like["intrinsics"] = camera / torch.cat([2 * camera[:, :2, 2:], torch.ones_like(camera[:, 2:, 2:])], dim=1)
            places = geometry["extrinsics"][0].float()
            if places.isfinite().all():
                like["extrinsics"] = torch.cat([places[:, :3], torch.eye(4)[3:].expand(len(places), 1, 4)], dim=1)
    return like


def as_da3(geometry: dict[str, Any]) -> dict[str, Any]:
    """A geometry of ours as a DA3_GEOMETRY: what is not valid is sky, cameras are in pixels."""
    depth, known = geometry_depth(geometry)
    batch, height, width = depth.shape
    like = {
        "depth": torch.where(known, depth, torch.zeros_like(depth)),
        "image": geometry["image"],
        "sky": (~known).float(),
        "mode": "mono",
    }
    if "enlarged" in geometry:
        like["enlarged"] = geometry["enlarged"]
    if "intrinsics" in geometry:
        size = torch.tensor([width, height, 1.0])[:, None]
        places = geometry.get("extrinsics", torch.eye(4).expand(batch, 4, 4))
        like |= {"mode": "multiview", "intrinsics": (geometry["intrinsics"] * size)[None], "extrinsics": places[None]}
    return like


def depth_of_any(depth: Any, disparity: bool, far_to_near: float, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Depth (B, H, W) float32 and its valid pixels, on the CPU, of a geometry or an IMAGE of depth or disparity.

    Args:
        disparity: an IMAGE holds inverse depth; not used for a geometry.
        far_to_near: of such an IMAGE: depth where it is black over depth where it is white.
        valid: MASK of the pixels that may be valid.

    Raises:
        ValueError: there is no depth, or the number of masks does not fit.
    """
    if disparity and not isinstance(depth, dict):
        return depth_of_disparity(depth, far_to_near, valid)
    return raw_depth(depth, valid)


def geometry_depth(geometry: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Depth (B, H, W) float32 and its valid pixels, on the CPU.

    Raises:
        ValueError: the geometry has no depth.
    """
    geometry = as_moge(geometry)
    depth = geometry["depth"].float().cpu()
    mask = geometry.get("mask")
    return depth, valid_pixels(depth, None if mask is None else mask.cpu() > 0.5)


def geometry_cameras(geometry: dict[str, Any], maps: Tensor, fov_degrees: float) -> Tensor:
    """Normalized cameras (B, 3, 3) of depth maps (B, H, W).

    Args:
        fov_degrees: horizontal field of view in place of the geometry's cameras; 0 keeps those, if there are any.
    """
    intrinsics = geometry.get("intrinsics")
    if fov_degrees or intrinsics is None:
        height, width = maps.shape[1:]
        return intrinsics_from_fov(height, width, fov_degrees or FOV_DEGREES).expand(len(maps), 3, 3)
    return torch.as_tensor(intrinsics).float().cpu().expand(len(maps), 3, 3)


def geometry_pictures(geometry: dict[str, Any], image: Tensor | None, count: int) -> Tensor | None:
    """RGB pictures (1 or ``count``, H, W, 3) of any size: ``image``, else the geometry's own, if it has one; CPU.

    Raises:
        ValueError: the number of pictures is neither 1 nor ``count``.
    """
    image = geometry.get("image") if image is None else image
    if image is None:
        return None
    if image.shape[0] not in (1, count):
        raise ValueError(
            f"image has {image.shape[0]} pictures for {count} depth maps; connect one picture, or one per map."
        )
    return to_rgb(image).cpu()


def needed_pictures(geometry: dict[str, Any], image: Tensor | None, count: int) -> Tensor:
    """The same, where there must be some; raises ValueError."""
    pictures = geometry_pictures(geometry, image, count)
    if pictures is None:
        raise ValueError("the geometry has no picture; connect one to image.")
    return pictures


def surroundings(geometry: dict[str, Any]) -> dict[str, Any]:
    """What a geometry says beyond its maps and lenses, for one made of it: places, enlargement."""
    return {key: geometry[key] for key in ("extrinsics", "enlarged") if key in geometry}


def check_index(batch_index: int, count: int) -> None:
    """Raise ValueError unless there is a depth map of this number."""
    if batch_index >= count:
        raise ValueError(f"batch_index is {batch_index}, but there are {count} depth maps (counted from 0).")


def raw_depth(depth: Any, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Depth (B, H, W) float32 and its valid pixels, on the CPU, of a geometry or an IMAGE that holds raw depth.

    Args:
        valid: MASK of the pixels that may be valid.

    Raises:
        ValueError: there is no depth, or the number of masks does not fit.
    """
    if isinstance(depth, dict):
        maps, usable = geometry_depth(depth)
    else:
        check_gray(depth)
        maps = to_gray(depth).cpu()
        usable = valid_pixels(maps, opaque_pixels(depth).cpu())
    return maps, usable if valid is None else usable & match_mask(valid, maps)


def depth_of_disparity(image: Tensor, far_to_near: float, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Relative depth (B, H, W), 1 where a disparity IMAGE is white, and its valid pixels, on the CPU.

    Args:
        far_to_near: depth where the image is black.
        valid: MASK of the pixels that may be valid.
    """
    check_gray(image)
    near = to_gray(image).cpu()
    usable = torch.isfinite(near) & opaque_pixels(image).cpu()
    near = torch.where(usable, near, torch.zeros_like(near)).clamp(min=0)
    near = near / near.amax((1, 2), keepdim=True).clamp(min=1e-12)
    floor = 1.0 / far_to_near
    maps = 1.0 / (near * (1.0 - floor) + floor)
    return maps, usable if valid is None else usable & match_mask(valid, maps)
