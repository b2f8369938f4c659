"""Other views of scenes: crops, wider fields of view and moved cameras, with captions that stay true of them.

A view depends on (seed, index) alone, as the scene does, and leaves the scene's own numbers as they are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .camera import Camera, own_camera
from .layout import HALF_VIEW, SceneLayout
from .render import room_shares

_UNIFORMS = 12
#: Of the views: crops, then wider fields of view, then moved cameras.
_CROPS, _WIDER = 0.45, 0.30
#: An object is named where this share of its bounds is in the picture, floor and walls where they fill this share.
_NAMED, _MENTIONED = 0.5, 0.05
#: Objects of at least this share of the picture's height are large.
_LARGE = 0.24


def sample_views(layout: SceneLayout, seed: int, start: int = 0, *, share: float) -> tuple[Camera, SceneLayout]:
    """Views of the scenes `start`, `start + 1`, ... of the sequence `seed`.

    Args:
        layout: these scenes.
        share: how many of them are seen otherwise than by their own camera, 0 to 1.

    Returns:
        The cameras, and the layouts for `captions` (not for `render`): only what the view shows exists in them, at its
        place and size there.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of views must be between 0 and 1; got {share}.")
    drawn = np.empty((len(layout), _UNIFORMS))
    for row in range(len(layout)):
        # Another counter of the scene's generator than its own numbers come from.
        generator = np.random.Generator(np.random.Philox(key=[seed, start + row], counter=[0, 0, 0, 1]))
        drawn[row] = generator.random(_UNIFORMS)
    uniforms = torch.from_numpy(drawn).float()
    own = own_camera(layout)
    kind = uniforms[:, 0] / max(share, 1e-9)
    crop, wider = kind < _CROPS, (kind >= _CROPS) & (kind < _CROPS + _WIDER)
    moved = (kind >= _CROPS + _WIDER) & (kind < 1)

    camera = _where(crop, _cropped(layout, own, uniforms), own)
    camera = _where(wider, replace(own, scale=own.scale * (1 + 0.55 * uniforms[:, 1])), camera)
    camera = _where(moved, _moved(own, uniforms), camera)
    return camera, _shown(layout, camera, kind < 1)


def picture_bounds(layout: SceneLayout, camera: Camera) -> Tensor:
    """Bounds (B, K, 4) of the objects in the cameras' pictures: left, top, right, bottom; a picture is [-1, 1]^2."""
    lower, upper = -layout.radius, layout.radius
    corners = torch.stack(
        [
            torch.stack((layout.position[..., 0] + x, -y, layout.position[..., 1] + z), dim=-1)
            for x in (lower, upper)
            for y in (torch.zeros_like(layout.height), layout.height)
            for z in (lower, upper)
        ],
        dim=2,
    )  # (B, K, 8, 3), world
    pose = camera.pose()
    local = torch.einsum("bkci,bij->bkcj", corners - pose[:, None, None, :3, 3], pose[:, :3, :3])
    flat = local[..., :2] / local[..., 2:].clamp_min(0.2) / HALF_VIEW
    flat = (flat - camera.center[:, None, None]) / camera.scale[:, None, None, None]
    return torch.cat((flat.amin(2), flat.amax(2)), dim=-1)


def _where(chosen: Tensor, first: Camera, second: Camera) -> Camera:
    def pick(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(chosen.view(-1, *[1] * (one.ndim - 1)), one, other)

    return Camera(
        position=pick(first.position, second.position),
        heading=pick(first.heading, second.heading),
        pitch=pick(first.pitch, second.pitch),
        scale=pick(first.scale, second.scale),
        center=pick(first.center, second.center),
    )


def _cropped(layout: SceneLayout, own: Camera, uniforms: Tensor) -> Camera:
    """A window of the scene's own picture, most often with its first object in it."""
    scale = 0.45 + 0.45 * uniforms[:, 1]
    spare = (1 - scale)[:, None]
    anywhere = (2 * uniforms[:, 2:4] - 1) * spare
    bounds = layout.bounds[:, 0]
    middle = (bounds[:, :2] + bounds[:, 2:]) / 2 + 0.4 * scale[:, None] * (2 * uniforms[:, 2:4] - 1)
    center = torch.where(uniforms[:, 4:5] < 0.2, anywhere, middle.clamp(-spare, spare))
    return replace(own, scale=scale, center=center)


def _moved(own: Camera, uniforms: Tensor) -> Camera:
    """A step of up to half a meter, looking at about the same place."""
    right, up, forward, turn, tilt = (2 * uniforms[:, 5:10] - 1).unbind(1)
    step = torch.stack((0.5 * right, 0.3 * up, 0.3 * forward), dim=1)
    return replace(
        own,
        position=own.position + step,
        heading=torch.atan2(-step[:, 0], torch.full_like(turn, 3.0)) + math.radians(4) * turn,
        pitch=own.pitch + torch.atan2(step[:, 1], torch.full_like(tilt, 3.0)) + math.radians(3) * tilt,
        scale=0.85 + 0.35 * uniforms[:, 10],
    )


def _shown(layout: SceneLayout, camera: Camera, is_view: Tensor) -> SceneLayout:
    bounds = picture_bounds(layout, camera)
    inside = bounds.clamp(-1, 1)
    area, visible = (
        (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]).clamp_min(1e-6) for box in (bounds, inside)
    )
    named = visible / area >= _NAMED
    phrase = layout.phrase.clone()
    # The caption mentions floor and wall where these two uniforms are small.
    for column, share in zip((6, 7), room_shares(layout, camera), strict=True):
        phrase[:, column] = phrase[:, column].masked_fill(is_view & (share < _MENTIONED), 1.0)
    view = is_view[:, None]
    return replace(
        layout,
        exists=layout.exists & (named | ~view),
        large=torch.where(view, (bounds[..., 3] - bounds[..., 1]) / 2 > _LARGE, layout.large),
        bounds=torch.where(view[..., None], bounds, layout.bounds),
        phrase=phrase,
    )
