"""Blur of what is out of focus, and fog, from a picture and its depth, in linear light, as in lenses and air."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..depth.disparity import disparity_of
from ..picture.color import to_linear, to_srgb

# The golden angle spreads any number of samples evenly over a disc.
_GOLDEN = math.pi * (3.0 - math.sqrt(5.0))
_SAMPLES_PER_PIXEL = 0.6
_MOST_SAMPLES = 400


def depth_of_field(
    image: Tensor,
    depth: Tensor,
    valid: Tensor,
    *,
    focus: float,
    strength: float,
    largest: float,
    advance: Callable[[float], None] = lambda share: None,
) -> Tensor:
    """A picture (H, W, 3) in [0, 1] as a lens sees it that is focused at a depth.

    A thin lens blurs a point to a disc with a diameter of |1 - focus / depth|, times a factor that the aperture gives.
    Pixels gather what the discs of others bring: those behind them only as far as they themselves are blurred, so that
    a sharp foreground stays clean.

    Args:
        depth: (H, W), with valid (H, W) bool; what has no depth is endlessly far.
        focus: depth that is sharp.
        strength: diameter of the disc of what is endlessly far, as a fraction of the picture's width.
        largest: diameter of any disc, as a fraction of the width.
        advance: called between samples with the share that is done; an exception of its own ends the work.
    """
    height, width = depth.shape
    distance = torch.where(valid, focus / torch.where(valid, depth, 1.0), 0.0)
    radius = (0.5 * width * strength * (1.0 - distance).abs()).clamp(max=0.5 * width * largest)
    reach = float(radius.max())
    if reach < 0.5:
        return image
    count = min(_MOST_SAMPLES, max(12, int(_SAMPLES_PER_PIXEL * math.pi * reach**2)))
    nearness = disparity_of(depth, valid)
    maps = torch.cat([to_linear(image).movedim(-1, 0), radius[None], nearness[None]])
    margin = math.ceil(reach) + 1
    padded = F.pad(maps[None], (margin,) * 4, mode="replicate" if margin < min(height, width) else "constant")[0]
    area = math.pi * reach**2 / count  # pixels that a sample stands for
    weight = _brightness(radius)
    total = weight * maps[:3]
    for sample in range(count):
        advance(sample / count)
        away = reach * math.sqrt((sample + 0.5) / count)
        down, right = round(away * math.sin(sample * _GOLDEN)), round(away * math.cos(sample * _GOLDEN))
        if not (down or right):
            continue
        other = padded[:, margin + down :, margin + right :][:, :height, :width]
        size, near = other[3], other[4]
        size = torch.where(near < nearness, torch.minimum(size, radius), size)
        share = area * _brightness(size) * (size - math.hypot(down, right) + 0.5).clamp(0.0, 1.0)
        total += share * other[:3]
        weight += share
    return to_srgb(total / weight).movedim(0, -1).clamp(0.0, 1.0)


def _brightness(radius: Tensor) -> Tensor:
    """What a disc of a radius in pixels brings to each pixel on it: its light is spread over its area."""
    return 1.0 / (math.pi * radius.square()).clamp(min=1.0)


def fog(
    image: Tensor, depth: Tensor, valid: Tensor, *, color: Tensor, start: float, half: float, most: float = 1.0
) -> Tensor:
    """A picture (H, W, 3) in [0, 1] in even fog: with every further distance `half`, half of what is seen is lost.

    Args:
        depth: (H, W), with valid (H, W) bool; what has no depth is endlessly far.
        color: (3,) of the fog, sRGB.
        start: depth at which the fog begins.
        half: depth beyond it at which half of the light is the fog's.
        most: share of the fog where it is thickest.
    """
    way = torch.where(valid, (depth - start).clamp(min=0.0), torch.inf)
    share = most * (1.0 - torch.exp2(-way / half))
    return to_srgb(torch.lerp(to_linear(image), to_linear(color).expand_as(image), share[..., None])).clamp(0.0, 1.0)
