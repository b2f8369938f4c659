"""Errors of relative depth against a reference (Eigen et al., arXiv 1406.2283)."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

#: Neighbors whose depths differ by more than this factor belong to two surfaces.
_EDGE_FACTOR = 1.1


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


def scaled_abs_rel(prediction: Tensor, reference: Tensor) -> Tensor:
    """:func:`abs_rel` of relative depth, after :func:`align_median`."""
    return abs_rel(align_median(prediction, reference), reference)


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


def edge_band(reference: Tensor) -> Tensor:
    """The four pixels around every depth edge of the maps (B, H, W), two on either side; bool, False where unknown.

    An edge lies between neighbors whose depths differ by more than 10%.
    """
    level = reference.log()
    beside = torch.zeros_like(reference)
    for axis in (1, 2):
        count = level.shape[axis]
        jump = level.diff(dim=axis).abs() > torch.tensor(_EDGE_FACTOR).log()
        for first in (0, 1):
            beside.narrow(axis, first, count - 1).masked_fill_(jump, 1.0)
    return (max_pool2d(beside[:, None], 3, stride=1, padding=1)[:, 0] > 0) & ~reference.isnan()


def constant_depth(reference: Tensor) -> Tensor:
    """The baseline that predicts one depth everywhere; aligning by the median makes every constant the same."""
    return torch.ones_like(reference)
