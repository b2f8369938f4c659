"""Ensembles of depth maps: alignment, median and spread."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from mforce.mforce_core.depth.ensemble import combine


@pytest.fixture
def surface() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.linspace(1, 3, 24), torch.linspace(0, 1, 32), indexing="ij")
    return rows + columns.square()


def test_maps_that_differ_in_scale_alone_agree(surface) -> None:
    scales = torch.tensor([0.5, 1.0, 3.0, 7.0])
    depth, spread = combine(surface * scales[:, None, None])
    ratio = depth / surface
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))
    assert float(ratio.mean()) == pytest.approx(float(scales.mean()), rel=1e-5)
    assert float(spread.max()) < 1e-5


def test_maps_that_differ_in_shift_agree_only_when_it_is_aligned(surface) -> None:
    maps = torch.stack([surface, 2 * surface + 1, 0.5 * surface + 3])
    assert float(combine(maps).spread.max()) > 0.02
    assert float(combine(maps, shift=True).spread.max()) < 1e-5


@pytest.mark.parametrize("shift", [False, True])
def test_noise_does_not_flatten_the_depth(surface, shift) -> None:
    """Least squares of a map against the median draws it towards its mean, by what is noise in it."""
    noise = torch.randn(8, *surface.shape, generator=torch.Generator().manual_seed(0))
    depth = combine(surface + 0.2 * noise, shift=shift).depth
    slope, offset = np.polyfit(surface.flatten(), depth.flatten(), 1)
    assert slope == pytest.approx(1, abs=0.02)
    assert offset == pytest.approx(0, abs=0.04)


def test_the_spread_is_the_deviation_that_scipy_computes(surface) -> None:
    """Noise that leaves the scales alone: its sign alternates over the map."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(9, *surface.shape, generator=generator) * 0.02
    maps = surface * (1 + noise)
    depth, spread = combine(maps)
    relative = maps.numpy() / np.median(maps.numpy(), axis=0)
    wanted = np.abs(relative - 1).mean(axis=0) * norm.pdf(0) ** -1 / 2  # E|x| = 2 pdf(0) of a standard normal x
    np.testing.assert_allclose(spread.numpy(), wanted, atol=2.5e-3)
    assert float((depth / surface - 1).abs().mean()) < 0.5 * float(noise.abs().mean())


def test_one_map_that_is_wrong_in_a_corner_does_not_move_the_median_and_shows_in_the_spread(surface) -> None:
    maps = surface.repeat(4, 1, 1)
    maps[0, :6, :8] *= 1.5
    maps[1, :6, :8] *= 0.7
    depth, spread = combine(maps)
    torch.testing.assert_close(depth[10:], surface[10:] * float(depth[10, 0] / surface[10, 0]))
    assert float(spread[:6, :8].min()) > 0.1
    assert float(spread[10:].max()) < 1e-5


def test_pixels_that_some_maps_lack(surface) -> None:
    maps = surface.repeat(3, 1, 1)
    maps[0, 0] = torch.nan
    maps[:, 1] = torch.nan
    depth, spread = combine(maps)
    assert depth[0].isfinite().all()
    assert depth[1].isnan().all()
    assert spread[1].isnan().all()


def test_one_map_is_its_own_ensemble(surface) -> None:
    depth, spread = combine(surface[None])
    torch.testing.assert_close(depth, surface)
    assert float(spread.max()) == 0


@pytest.mark.parametrize("maps", [torch.ones(4, 4), torch.ones(0, 4, 4), torch.full((2, 4, 4), torch.nan)])
def test_refusals(maps) -> None:
    with pytest.raises(ValueError, match="ensemble"):
        combine(maps)
