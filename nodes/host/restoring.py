"""The way back from the model's canvas to the original picture, for pictures, masks and geometries."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ...mforce_core.placement import Placement
from .geometry import as_da3, as_moge, geometry_depth, geometry_of_cameras
from .images import match_image, to_rgb


def restore_image(maps: Tensor, placement: Placement) -> Tensor:
    """Pictures or masks (B, C, H, W) of the canvas's size at the source's, within the range of their values.

    Raises:
        ValueError: they are not of the canvas's size.
    """
    _check_size(maps, placement)
    return placement.restore_image(maps)


def restore_geometry(geometry: dict[str, Any], placement: Placement, image: Tensor | None) -> dict[str, Any]:
    """A geometry of the canvas's size at the source's.

    Args:
        image: the source picture, in place of the geometry's own.

    Raises:
        ValueError: the geometry is not of the canvas's size.
    """
    of_da3 = "mode" in geometry
    geometry = as_moge(geometry)
    depth, valid = geometry_depth(geometry)
    _check_size(depth, placement)
    restored = placement.restore_depth(torch.where(valid, depth, torch.nan))
    known = torch.isfinite(restored)
    maps = torch.where(known, restored, torch.inf)
    if image is not None:
        picture = match_image(to_rgb(image), maps)
    else:
        own = rearrange(geometry["image"].cpu(), "b h w c -> b c h w")
        picture = rearrange(restore_image(own, placement), "b c h w -> b h w c")
    if "intrinsics" not in geometry:
        result: dict[str, Any] = {"depth": maps, "mask": known, "image": picture}
    else:
        cameras = placement.restore_cameras(geometry["intrinsics"].float().cpu())
        result = geometry_of_cameras(maps, known, picture, cameras)
    _, _, height, width = placement.crop
    result["enlarged"] = max(1.0, height / placement.size[0], width / placement.size[1])
    if "extrinsics" in geometry:
        result["extrinsics"] = geometry["extrinsics"]
    return as_da3(result) if of_da3 else result


def _check_size(maps: Tensor, placement: Placement) -> None:
    if tuple(maps.shape[-2:]) != placement.canvas:
        (rows, columns), (height, width) = maps.shape[-2:], placement.canvas
        raise ValueError(
            f"the content is {columns}x{rows}, but the latent's picture was brought to {width}x{height}; connect what"
            " was decoded from this latent, at its original size."
        )
