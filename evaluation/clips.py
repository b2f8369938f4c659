"""Rendered clips with exact depth: a camera that wanders through a room."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..scenes import Camera, SceneLayout, own_camera, render

#: Frames of one way around, and how far the camera goes to the side, up and forward, in meters.
_PERIOD, _REACH = 100, (0.5, 0.2, 0.35)


def wandering(layout: SceneLayout, frames: int, seed: int) -> Camera:
    """Cameras of a clip of one scene, at the pace of a slow walk: about 3 cm a frame, looking at about one place.

    Args:
        layout: a single scene.
        frames: number of cameras; the way repeats after some hundred.
        seed: of the phases of the way.
    """
    phases = 2 * math.pi * np.random.default_rng(seed).random(3)
    turns = 2 * math.pi * torch.arange(frames, dtype=torch.float32) / _PERIOD
    right, up, forward = (
        reach * torch.sin(pace * turns + float(phase))
        for reach, pace, phase in zip(_REACH, (1.0, 2.0, 1.5), phases, strict=True)
    )
    own = own_camera(layout)
    still = own[torch.zeros(frames, dtype=torch.long)]
    return replace(
        still,
        position=still.position + torch.stack((right, up, forward), dim=1),
        heading=still.heading - torch.atan2(right, torch.full_like(right, 3.0)),
        pitch=still.pitch + torch.atan2(up, torch.full_like(up, 3.0)),
    )


def render_clip(layout: SceneLayout, frames: int, seed: int, side: int) -> tuple[Tensor, Tensor]:
    """Pictures (T, 3, H, W) in [0, 1] and exact depth (T, H, W) of a clip of one scene."""
    whole = layout[torch.zeros(frames, dtype=torch.long)]
    return render(whole, side, camera=wandering(layout, frames, seed))
