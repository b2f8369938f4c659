"""Dense depth that agrees with sparse measurements: a predicted map, corrected by what is known.

The model predicts clean depth in pixel space, so measurements can correct every prediction of a rollout directly: first
its scale, then, smoothly over the picture, the ratio that is left at the measured pixels, and last those pixels
themselves. The next step of the sampler starts from the corrected map.

Putting the measurements in alone (inpainting by pixels) leaves the prediction between them as it was: measured on nano
0.1 with 5% of the pixels, AbsRel of the others falls from 0.055 to 0.054 that way, and to 0.016 with the smooth
correction.
"""

import math

import torch
from torch import Tensor

from ..model.tokens import patchify, unpatchify
from .cells import gather, offsets, spread
from .codec import contract, expand

#: Cells along the longer side, coarse to fine, at which the remaining ratio is averaged.
_CELLS = (8, 32, 64)

# Gaussian over neighboring cells: standard deviation and reach.
_SIGMA, _REACH = 1.5, 4

#: Contracted depth that a prediction is held within before it is corrected: 2 is infinitely far.
_NEAREST, _FARTHEST = 0.01, 1.98

#: A cell trusts its own measurements where they weigh more than this part of the densest cell's.
_TRUST = 0.02


def complete_depth(prediction: Tensor, known: Tensor, valid: Tensor) -> Tensor:
    """Correct predicted depth by measurements.

    Args:
        prediction: (B, H, W), positive and finite, in any unit.
        known: (B or 1, H, W) measured depth; its unit is the result's.
        valid: (B or 1, H, W) bool, where ``known`` holds a measurement, at least one pixel per map.

    Returns:
        (B, H, W): ``known`` where it is valid, elsewhere the prediction times a smooth positive factor.
    """
    valid = valid.expand(prediction.shape)
    known = torch.where(valid, known.expand(prediction.shape), torch.ones_like(prediction))
    ratio = torch.where(valid, (known / prediction).log(), torch.full_like(prediction, torch.nan))
    scale = ratio.flatten(1).nanmedian(dim=1).values[:, None, None]
    left = torch.where(valid, ratio - scale, torch.zeros_like(ratio))
    correction = torch.zeros_like(left)
    for cells in _CELLS:
        correction = correction + _smooth(torch.where(valid, left - correction, correction.new_zeros(())), valid, cells)
    return torch.where(valid, known, prediction * (scale + correction).exp())


def complete_patches(patches: Tensor, known: Tensor, valid: Tensor) -> Tensor:
    """The same for predicted patches (B, h, w, p * p) of contracted depth, float32, in the unit of ``known``."""
    prediction = expand(unpatchify(patches).clamp(_NEAREST, _FARTHEST))
    return patchify(contract(complete_depth(prediction, known, valid)), math.isqrt(patches.shape[-1]))


def _smooth(values: Tensor, valid: Tensor, cells: int) -> Tensor:
    """Values at the valid pixels of (B, H, W), spread over all by normalized convolution on a grid of ``cells``."""
    cell = max(1, round(max(values.shape[1:]) / cells))
    kernel = torch.exp(-offsets(_REACH, values).square() / (2 * _SIGMA**2))
    total, weight = gather(torch.stack((values, valid.to(values)), dim=1), cell, kernel).unbind(1)
    mean = total / (weight + _TRUST * weight.amax((1, 2), keepdim=True)).clamp(min=1e-12)
    return spread(mean, cell, values.shape[1:])
