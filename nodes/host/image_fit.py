"""Bringing pictures and depth maps of any size to a size on the latent grid."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ...mforce_core.picture import placement
from ...mforce_core.picture.placement import CROP, FITS, KEEP, Placement
from ...mforce_core.release import NANO_SIZE, PATCH_SIZE
from .joint_latent import check_size


def size_inputs() -> list[io.Input]:
    """The width, height and fit widgets of a node that takes pictures of any size."""
    return [
        io.Int.Input(
            "width",
            default=NANO_SIZE,
            min=PATCH_SIZE,
            max=8192,
            step=PATCH_SIZE,
            tooltip="Width to work at, a multiple of 16: 128 for nano, about 512 for the released model.",
        ),
        io.Int.Input(
            "height",
            default=NANO_SIZE,
            min=PATCH_SIZE,
            max=8192,
            step=PATCH_SIZE,
            tooltip="Height to work at, a multiple of 16: 128 for nano, about 512 for the released model.",
        ),
        io.Combo.Input(
            "fit",
            options=list(FITS),
            default=CROP,
            tooltip="How the input becomes width x height. crop: cut the longer side, centered. letterbox: "
            "add bars, which are left out of the depth. stretch: change the proportions. keep size: use the "
            "input's own size, which must be a multiple of 16. keep aspect: the input's proportions, as nearly as "
            "multiples of 16 allow, at about width x height pixels. MF Restore Size undoes all of them.",
        ),
    ]


def place(node: str, source: tuple[int, int], width: int, height: int, fit: str) -> Placement:
    """How an input of ``source`` (height, width) comes to ``height`` x ``width``.

    Raises:
        ValueError: naming ``node``, for sizes off the grid.
    """
    if fit != KEEP:
        check_size(node, width, height)
    try:
        return placement.place(source, (height, width), fit)
    except ValueError as error:
        raise ValueError(f"{node}: {error}") from None


def fit_image(image: Tensor, fitted: Placement) -> Tensor:
    """IMAGE (B, H, W, C) to RGB (B, H', W', 3) in [0, 1]; transparency is put on white, bars are black."""
    return fitted.place_image(to_rgb(image).movedim(-1, 1).float()).movedim(1, -1)


def to_rgb(image: Tensor) -> Tensor:
    """IMAGE with 1 to 4 channels to 3: gray is repeated, an alpha channel is put on white."""
    channels = image.shape[-1]
    if channels in (2, 4):
        alpha = image[..., -1:]
        image = image[..., :-1] * alpha + (1 - alpha)
    return image if image.shape[-1] == 3 else image[..., :1].expand(*image.shape[:-1], 3)


def fit_depth(depth: Tensor, valid: Tensor, fitted: Placement) -> tuple[Tensor, Tensor]:
    """Scale depth (B, H, W) and its valid pixels; every depth is one that was measured, and none lies on the bars."""
    placed = fitted.place_depth(torch.where(valid, depth, torch.nan))
    inside = torch.isfinite(placed)
    return torch.where(inside, placed, torch.zeros_like(placed)), inside
