"""How made pictures look beside rendered ones: seams between tokens, sharpness inside them, outlines, hues.

Seams and outlines alone could be improved by blurring; sharpness, taken inside tokens where no seam counts, tells.
"""

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..mforce_core.release import PATCH_SIZE

#: A pixel counts as saturated color above these (HSV, 0..1): floors, walls and their shadows lie below.
MIN_SATURATION, MIN_VALUE = 0.5, 0.25

#: Share of the largest differences between neighbors that sharpness is the mean of: the edges of a picture.
_EDGES = 0.05


def seam_steps(maps: Tensor) -> Tensor:
    """Mean absolute difference of horizontal neighbors across token borders and inside tokens.

    The ratio of the two means over many pictures is the seam ratio: about 1 where nothing shows that there are tokens.

    Args:
        maps: (B, ..., H, W): pictures, or the logarithm of depth; pairs with a NaN are left out.

    Returns:
        (B, 2): across borders, inside tokens.
    """
    step, border = _horizontal_steps(maps)
    return torch.stack([step[..., kind].flatten(1).nanmean(1) for kind in (border, ~border)], dim=1)


def column_steps(maps: Tensor) -> Tensor:
    """Mean absolute difference of horizontal neighbors by their place in a token, the last one across its border.

    The largest of the means over many pictures, by their mean, finds a grid wherever in the tokens its lines are.

    Args:
        maps: as in :func:`seam_steps`, three tokens wide or more: those at both ends, which lap over no border
            outward, are left out.

    Returns:
        (B, PATCH_SIZE).
    """
    step, _ = _horizontal_steps(maps)
    inner = step[..., PATCH_SIZE : (maps.shape[-1] // PATCH_SIZE - 1) * PATCH_SIZE]
    return inner.unflatten(-1, (-1, PATCH_SIZE)).flatten(1, -2).nanmean(1)


def sharpness(maps: Tensor) -> Tensor:
    """Mean of the largest 5% of the absolute differences of horizontal neighbors inside tokens, (B, ..., H, W) -> (B,).

    Only worth something beside the same measure of rendered pictures of the same kind.
    """
    step, border = _horizontal_steps(maps)
    inside = step[..., ~border].flatten(1).nan_to_num(0.0)
    return inside.topk(max(1, round(_EDGES * inside.shape[1])), dim=1).values.mean(1)


def _horizontal_steps(maps: Tensor) -> tuple[Tensor, Tensor]:
    """(B, ..., H, W - 1) absolute differences, and which of the W - 1 columns lie across a border, bool."""
    step = (maps[..., 1:] - maps[..., :-1]).abs()
    return step, torch.arange(1, maps.shape[-1]) % PATCH_SIZE == 0


def roundness(mask: np.ndarray) -> float:
    """Intersection over union of a region with the circle of its area and center; 0 for an empty mask.

    A disc rastered at this size gives about 0.98.

    Args:
        mask: (H, W) bool; its largest connected part counts, holes in it filled (highlights).
    """
    parts, count = ndimage.label(mask)
    if count == 0:
        return 0.0
    largest = 1 + int(np.bincount(parts.ravel())[1:].argmax())
    region = ndimage.binary_fill_holes(parts == largest)
    row, column = ndimage.center_of_mass(region)
    rows, columns = np.indices(region.shape)
    circle = np.hypot(rows - row, columns - column) <= math.sqrt(region.sum() / math.pi)
    return float((region & circle).sum() / (region | circle).sum())


def hue_and_saturated(image: Tensor) -> tuple[Tensor, Tensor]:
    """Hue in degrees and which pixels are saturated color, each (H, W), of an image (3, H, W) in [0, 1]."""
    high, channel = image.max(0)
    chroma = high - image.min(0).values
    red, green, blue = image
    sector = torch.stack((green - blue, blue - red, red - green)).gather(0, channel[None])[0]
    hue = (sector / chroma.clamp(min=1e-6) + 2 * channel) % 6 * 60
    return hue, (chroma > MIN_SATURATION * high) & (high > MIN_VALUE)


def nearest_hue(hue: Tensor, hues: Tensor) -> Tensor:
    """Index of the nearest of the reference hues (n,) for every hue (...), all in degrees."""
    distance = (hue[..., None] - hues + 180) % 360 - 180
    return distance.abs().argmin(-1)


def dominant_hue(image: Tensor, hues: Tensor) -> int:
    """Index of the reference hue that most saturated pixels are nearest to, -1 where no pixel is saturated.

    Args:
        image: (3, H, W) in [0, 1].
        hues: (n,) degrees.
    """
    hue, saturated = hue_and_saturated(image)
    if not saturated.any():
        return -1
    return int(nearest_hue(hue[saturated], hues).bincount(minlength=len(hues)).argmax())


def object_mask(image: Tensor, hues: Tensor, index: int) -> np.ndarray:
    """(H, W) bool: saturated pixels of an image (3, H, W) in [0, 1] whose nearest reference hue is the one named."""
    hue, saturated = hue_and_saturated(image)
    return (saturated & (nearest_hue(hue, hues) == index)).numpy()
