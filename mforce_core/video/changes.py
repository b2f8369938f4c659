"""What changes from one frame of a clip to the next: cuts, and pixels that stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, max_pool2d

#: Share of the pixels that change their place in the color histogram, from which on two frames are different shots.
#: Between frames of walks (0.074 at most) and cuts between rooms (0.271 at least) of rendered clips, see docs/video.md.
CUT = 0.2

_SIDE, _BINS = 64, 16
#: A difference of color, of 1, at which a pixel no longer counts as unchanged; compression and noise stay below it.
_CHANGED = 8 / 255
#: Of the pixels on edges and texture, the share that stays where the camera rests.
_RESTS = 0.8


def shot_distance(before: Tensor, after: Tensor) -> float:
    """How different the colors of two pictures (3, H, W) in [0, 1] are, wherever in the picture they are.

    Returns:
        1 - the intersection of their histograms, the mean of the channels: 0 for the same colors, 1 for none in common.
    """
    common = torch.minimum(_histogram(before), _histogram(after)).sum(1)
    return float(1 - common.mean())


def _histogram(picture: Tensor) -> Tensor:
    """(3, bins) shares of a picture's pixels, on a small copy."""
    small = adaptive_avg_pool2d(picture[None], _SIDE)[0].flatten(1)
    return torch.stack([torch.histc(channel, _BINS, 0, 1) for channel in small]) / small.shape[1]


def steadiness(before: Tensor, after: Tensor) -> Tensor:
    """How far each pixel stays as it is between two pictures (3, H, W) in [0, 1].

    Returns:
        (H, W): 1 where the color is the same, 0 where the largest difference of a channel, averaged over 3 x 3 pixels,
        is 8 levels of 255 or more.
    """
    difference = (after - before).abs().amax(0)
    nearby = avg_pool2d(difference[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
    return (1 - nearby / _CHANGED).clamp(min=0)


def camera_rests(picture: Tensor, weight: Tensor) -> bool:
    """Whether the picture as a whole stayed, whatever moved in it.

    Only edges and texture say so: an even wall looks the same when the camera goes by.

    Args:
        picture: (3, H, W) in [0, 1].
        weight: (H, W) from `steadiness`.
    """
    contrast = (max_pool2d(picture[None], 3, 1, 1) + max_pool2d(-picture[None], 3, 1, 1)).amax(1)[0]
    textured = contrast > _CHANGED
    return not textured.any() or bool((weight[textured] > 0).float().mean() >= _RESTS)
