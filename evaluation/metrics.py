"""Errors of relative depth against a reference (Eigen et al., arXiv 1406.2283) and the dominant hue of an image."""

import torch
from torch import Tensor

#: A pixel counts as saturated color above these (HSV, 0..1): floors, walls and their shadows lie below.
MIN_SATURATION, MIN_VALUE = 0.5, 0.25


def align_median(prediction: Tensor, reference: Tensor) -> Tensor:
    """Scale each relative depth map so that the median of prediction / reference over its valid pixels is 1.

    Args:
        prediction: (B, H, W), NaN where the model gives no depth.
        reference: (B, H, W), positive and finite where known, else NaN.

    Returns:
        (B, H, W) scaled prediction.
    """
    ratio = (prediction / reference).flatten(1).nanmedian(1).values
    return prediction / ratio[:, None, None]


def abs_rel(prediction: Tensor, reference: Tensor) -> Tensor:
    """Mean of ``|prediction - reference| / reference`` over the reference's pixels, (B, H, W) -> (B,).

    A pixel without a prediction counts as an error of 1: leaving pixels out must not pay.
    """
    error = ((prediction - reference).abs() / reference).masked_fill(prediction.isnan(), 1.0)
    return error.masked_fill(reference.isnan(), torch.nan).flatten(1).nanmean(1)


def delta1(prediction: Tensor, reference: Tensor) -> Tensor:
    """Share of the reference's pixels with ``max(p / r, r / p) < 1.25``, (B, H, W) -> (B,); no prediction is a miss."""
    ratio = torch.maximum(prediction / reference, reference / prediction)
    hit = (ratio < 1.25).float()
    return hit.masked_fill(reference.isnan(), torch.nan).flatten(1).nanmean(1)


def constant_depth(reference: Tensor) -> Tensor:
    """The baseline that predicts one depth everywhere; aligning by the median makes every constant the same."""
    return torch.ones_like(reference)


def dominant_hue(image: Tensor, hues: Tensor) -> int:
    """Index of the reference hue that most saturated pixels are nearest to, -1 where no pixel is saturated.

    Args:
        image: (3, H, W) in [0, 1].
        hues: (n,) degrees.
    """
    high, channel = image.max(0)
    low = image.min(0).values
    chroma = high - low
    red, green, blue = image
    sector = torch.stack((green - blue, blue - red, red - green)).gather(0, channel[None])[0]
    hue = (sector / chroma.clamp(min=1e-6) + 2 * channel) % 6 * 60
    saturated = (chroma > MIN_SATURATION * high) & (high > MIN_VALUE)
    if not saturated.any():
        return -1
    distance = (hue[saturated][:, None] - hues + 180) % 360 - 180
    return int(distance.abs().argmin(1).bincount(minlength=len(hues)).argmax())
