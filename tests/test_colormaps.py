"""The colors of depth pictures."""

import numpy as np
import pytest

from mforce.mforce_core.depth.colormaps import COLORMAPS, colorize

RAMP = np.linspace(0, 1, 256)


@pytest.mark.parametrize("name", ["viridis", "magma", "inferno", "plasma"])
def test_lightness_rises_all_the_way(name):
    """What these maps are made for; luminance by Rec. 709 on linear light."""
    linear = colorize(RAMP, name).astype(np.float64) ** 2.2
    assert (np.diff(linear @ [0.2126, 0.7152, 0.0722]) > 0).all()


def test_spectral_is_warm_at_one():
    far, near = colorize(np.array([0.0, 1.0]), "spectral")
    assert near[0] > near[2]
    assert far[2] > far[0]


@pytest.mark.parametrize("name", COLORMAPS)
def test_values_beyond_the_range_take_its_ends(name):
    ends, beyond = colorize(np.array([[0.0, 1.0]]), name), colorize(np.array([[-1.0, 7.0]]), name)
    assert ends.shape == (1, 2, 3)
    np.testing.assert_array_equal(ends, beyond)
