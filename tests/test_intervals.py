"""Intervals of shares, against the closed form of Wilson (1927) in the textbooks."""

import math

import pytest
import torch

from mforce.evaluation.intervals import share

Z = 1.959963984540054


@pytest.mark.parametrize(("hits", "count"), [(16, 16), (0, 16), (5, 16), (1, 1), (0, 1), (250, 256)])
def test_shares_have_the_interval_of_wilson(hits, count) -> None:
    found = share(torch.arange(count) < hits)
    p = hits / count
    center = (p + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * math.sqrt(p * (1 - p) / count + Z * Z / (4 * count * count))
    assert found.value == p
    assert (found.low, found.high) == pytest.approx((center - half, center + half), abs=1e-12)


def test_pictures_that_all_agree_do_not_make_certain() -> None:
    assert share(torch.ones(16, dtype=torch.bool)).low == pytest.approx(0.806, abs=1e-3)
    assert share(torch.ones(160, dtype=torch.bool)).low > 0.97
