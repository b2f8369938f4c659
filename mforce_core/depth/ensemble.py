"""One depth map from several of the same picture, and where they do not agree.

Sampling draws a depth map from those that fit the picture. Maps from different noise agree where the picture decides
and differ where it leaves room, so their spread says where depth is not to be trusted (as in Marigold, Ke et al.,
arXiv 2312.02145).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

#: Rounds of aligning every map to the median of all; the largest change after them is below 1e-4.
_ROUNDS = 5


class Ensemble(NamedTuple):
    """A depth map (H, W), and how far single maps lie from it as a share of it, (H, W); NaN where unknown."""

    depth: Tensor
    spread: Tensor


def combine(maps: Tensor, *, shift: bool = False) -> Ensemble:
    """Align maps in scale and take their median.

    Args:
        maps: (K, H, W) relative depth, NaN where a map has none.
        shift: align by an offset, too, as affine-invariant depth needs; then depth may touch 0, and is NaN there.

    Returns:
        The median, at the mean scale of the maps (with ``shift`` at their mean contrast, too), and sqrt(pi / 2) times
        the mean absolute deviation from it over it, which is the standard deviation where maps differ by Gaussian
        noise. One map has no spread: it is 0.

    Raises:
        ValueError: no map, or one without any pixel that others have.
    """
    if maps.ndim != 3 or not len(maps):
        raise ValueError(f"an ensemble needs maps (K, H, W), got {tuple(maps.shape)}")
    aligned = maps.double()
    for _ in range(_ROUNDS):
        center = aligned.nanquantile(0.5, dim=0)
        known = ~(aligned.isnan() | center.isnan())
        if not known.flatten(1).any(1).all():
            raise ValueError("a depth map of the ensemble has no pixel in common with the others")
        aligned = torch.stack([_aligned(one, center, both, shift) for one, both in zip(aligned, known, strict=True)])
        aligned = _rescaled(aligned, maps.double(), shift)
    center = aligned.nanquantile(0.5, dim=0)
    center = torch.where(center > 0, center, torch.nan)
    spread = math.sqrt(math.pi / 2) * (aligned - center).abs().nanmean(0) / center
    return Ensemble(center.float(), spread.float())


def _aligned(one: Tensor, center: Tensor, known: Tensor, shift: bool) -> Tensor:
    """The map brought to the center: by the median of the ratios, or with an offset by least squares in both."""
    ours, theirs = one[known], center[known]
    if not shift:
        return one * (theirs / ours).median()
    spread = ours - ours.mean()
    scale = (spread * (theirs - theirs.mean())).sum() / spread.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    return scale * one + (theirs.mean() - scale * ours.mean())


def _rescaled(aligned: Tensor, maps: Tensor, shift: bool) -> Tensor:
    """Aligned maps with the mean of the given ones, and where there is an offset with their contrast, too.

    Least squares in noisy maps gives slopes below 1: without this, every round would flatten all of them.
    """
    if not shift:
        return aligned * (maps.nanmean() / aligned.nanmean())
    contrast = _contrast(maps) / _contrast(aligned).clamp(min=torch.finfo(torch.float64).tiny)
    return maps.nanmean() + contrast * (aligned - aligned.nanmean())


def _contrast(maps: Tensor) -> Tensor:
    """Mean of the maps' standard deviations."""
    return torch.stack([one[~one.isnan()].std(correction=0) for one in maps]).mean()
