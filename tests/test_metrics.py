"""Errors of depth on cases worked out by hand."""

import math

import pytest
import torch

from mforce.evaluation.metrics import abs_rel, align_median, constant_depth, delta1, edge_band


def test_errors_by_hand() -> None:
    reference = torch.tensor([[[1.0, 2.0, 4.0, math.nan]]])
    prediction = torch.tensor([[[1.1, 1.0, math.nan, 5.0]]])
    assert float(abs_rel(prediction, reference)) == pytest.approx((0.1 + 0.5 + 1.0) / 3)
    assert float(delta1(prediction, reference)) == pytest.approx(1 / 3)


def test_alignment_removes_scale() -> None:
    reference = torch.rand(3, 8, 8) + 0.5
    scaled = reference * torch.tensor([0.1, 1.0, 30.0])[:, None, None]
    torch.testing.assert_close(align_median(scaled, reference), reference)
    once, again = (align_median(k * constant_depth(reference), reference) for k in (1, 7))
    torch.testing.assert_close(once, again)


def test_the_edge_band_is_four_pixels_wide() -> None:
    reference = torch.ones(1, 8, 10)
    reference[..., 5:] = 1.2
    assert edge_band(reference)[0].any(0).tolist() == [c in (3, 4, 5, 6) for c in range(10)]
    assert not edge_band(torch.linspace(1, 2, 100).expand(1, 4, 100)).any()  # a slope is no edge
    reference[0, 2, 4] = torch.nan
    assert not edge_band(reference)[0, 2, 4]
