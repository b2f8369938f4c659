"""Jumps of depth, at which one surface ends and another begins."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..release import EDGE_THRESHOLD, RELEASE_SIZE
from .codec import valid_pixels


def depth_edges(depth: Tensor, threshold: float = EDGE_THRESHOLD) -> Tensor:
    """(H, W) bool: where the depth of the 3x3 neighborhood spans more than `threshold` of its center.

    A pixel without depth counts as depth 0, so that a missing neighbor makes an edge.
    """
    if not threshold >= 0.0:
        raise ValueError(f"edge_threshold must be zero or more, got {threshold}; use None to keep edges.")
    depth = depth.float()
    window = torch.where(valid_pixels(depth), depth, torch.zeros_like(depth))[None, None]
    highest = max_pool2d(window, 3, stride=1, padding=1)
    lowest = -max_pool2d(-window, 3, stride=1, padding=1)
    return (highest - lowest > threshold * window)[0, 0]


def scaled_edge_threshold(side: float) -> float:
    """The release's edge threshold, made for 512 pixels, for a picture whose longer side is `side` pixels.

    The coarser the pixels, the larger the step of depth between two of them on the same slanted surface: with
    the release's number itself, a small picture loses its floors and walls.
    """
    return EDGE_THRESHOLD * max(1.0, RELEASE_SIZE / side)
