"""Depth maps at another size: nothing invented, planes stay planes."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from mforce.mforce_core.depth.resampling import enlarge_depth, resample_depth

SIDE = st.integers(1, 40)


def random_maps(rows, columns, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(1, 2, (2, rows, columns)).astype(np.float32))


def test_shrinking_a_sparse_map_keeps_its_measurements():
    sparse = torch.full((1, 64, 64), torch.nan)
    sparse[0, 5::16, 9::16] = torch.arange(1.0, 17.0).view(4, 4)
    small = resample_depth(sparse, (8, 8))
    assert small[~small.isnan()].sort().values.tolist() == list(range(1, 17))
    # Also where the other side grows.
    tall = resample_depth(sparse, (128, 8))
    assert set(tall[~tall.isnan()].tolist()) == set(range(1, 17))


@settings(max_examples=50, deadline=None)
@given(SIDE, SIDE, SIDE, SIDE)
def test_resampling_never_invents_depth(rows, columns, height, width):
    maps = random_maps(rows, columns, rows * 41 + columns)
    resampled = resample_depth(maps, (height, width))
    assert resampled.shape == (2, height, width)
    for before, after in zip(maps, resampled, strict=True):
        assert torch.isin(after, before).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4))
def test_a_dense_map_takes_the_nearest_pixels(height, width, factor):
    maps = random_maps(height * factor, width * factor)
    wanted = interpolate(maps[:, None], (height, width), mode="nearest-exact")[:, 0]
    assert torch.equal(resample_depth(maps, (height, width)), wanted)


def test_the_measurement_nearest_to_the_center_is_kept():
    maps = torch.full((1, 5, 5), torch.nan)
    maps[0, 0, 0], maps[0, 2, 3], maps[0, 4, 4] = 1.0, 2.0, 3.0
    assert resample_depth(maps, (1, 1)).item() == 2.0


def plane(size, slope=0.3):
    """Depth of a slanted plane, whose inverse is linear across the picture."""
    row = (torch.arange(size) + 0.5) / size
    return (1 / (1 - slope * row))[:, None].expand(size, size)[None].contiguous()


def test_a_plane_stays_a_plane():
    inner = (slice(None), slice(4, -4), slice(4, -4))
    torch.testing.assert_close(enlarge_depth(plane(32), (128, 128))[inner], plane(128)[inner], rtol=1e-5, atol=0)
    torch.testing.assert_close(
        enlarge_depth(plane(32), (128, 16))[:, 4:-4, 0], plane(128)[:, 4:-4, 0], rtol=1e-5, atol=0
    )


def test_nothing_floats_between_near_and_far():
    maps = plane(16) * torch.where(torch.arange(16) < 8, 1.0, 5.0)
    maps[0, 3, 3] = torch.nan
    large = enlarge_depth(maps, (64, 64))
    assert torch.equal(large.isnan(), interpolate(maps[None], (64, 64), mode="nearest-exact")[0].isnan())
    known = large[~large.isnan()]
    low, high = maps[..., :8], maps[..., 8:]
    low = low[~low.isnan()]
    assert ((known <= low.max() * 1.0001) | (known >= high.min() * 0.9999)).all()
