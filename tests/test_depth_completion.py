"""Correcting a predicted map by measurements."""

import math

import pytest
import torch
from scipy.interpolate import NearestNDInterpolator

from mforce.mforce_core.depth.completion import complete_depth


def scene(height=96, width=128):
    """A slanted floor with a box on it, (1, H, W)."""
    depth = torch.linspace(8.0, 2.0, height)[:, None].expand(height, width).clone()
    depth[height // 3 : height // 2, width // 4 : width // 2] = 3.0
    return depth[None]


def drifted(depth):
    """The scene as an estimator that is off by a smooth factor of up to 1.6 sees it."""
    axes = torch.linspace(0, 1, depth.shape[1]), torch.linspace(0, 1, depth.shape[2])
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    return 0.4 * depth * torch.exp(0.25 * torch.sin(3 * rows + 2) + 0.25 * torch.cos(4 * columns))


def points(depth, share, seed=0):
    return torch.rand(depth.shape, generator=torch.Generator().manual_seed(seed)) < share


def abs_rel(found, wanted, where):
    return float(((found - wanted).abs() / wanted)[where].mean())


def test_a_wrong_scale_alone_is_put_right_everywhere():
    depth = scene()
    completed = complete_depth(depth / 7, depth, points(depth, 0.01))
    assert torch.allclose(completed, depth, rtol=1e-5)


def test_measured_pixels_are_taken_as_they_are():
    depth = scene()
    valid = points(depth, 0.05)
    noisy = depth * 1.3
    assert torch.equal(complete_depth(drifted(depth), noisy, valid)[valid], noisy[valid])


@pytest.mark.parametrize("share", [0.002, 0.05])
def test_a_smooth_error_is_corrected_between_the_points(share):
    depth, valid = scene(), points(scene(), share)
    prediction = drifted(depth)
    completed = complete_depth(prediction, depth, valid)
    scaled = prediction * (depth / prediction)[valid].median()
    assert abs_rel(completed, depth, ~valid) < 0.25 * abs_rel(scaled, depth, ~valid)
    # Better than giving every pixel the correction of the nearest point.
    ratio = (depth / prediction)[0]
    places = valid[0].nonzero().numpy()
    nearest = NearestNDInterpolator(places, ratio[valid[0]].numpy())
    everywhere = torch.from_numpy(nearest((~valid[0]).nonzero().numpy())).float()
    interpolated = prediction.clone()
    interpolated[~valid] *= everywhere
    assert abs_rel(completed, depth, ~valid) < 1.1 * abs_rel(interpolated, depth, ~valid)


def test_no_surface_appears_between_near_and_far():
    depth = torch.full((1, 64, 64), 1.0)
    depth[..., 32:] = 10.0
    completed = complete_depth(depth * 2, depth, points(depth, 0.05))
    assert not ((completed > 1.1) & (completed < 9)).any()


def test_one_set_of_points_serves_a_batch_and_sizes_off_the_cells_work():
    depth = scene(77, 101)
    prediction = torch.cat((drifted(depth), depth * 3, depth))
    completed = complete_depth(prediction, depth, points(depth, 0.05))
    assert completed.shape == prediction.shape
    assert torch.isfinite(completed).all()
    assert (completed > 0).all()


def test_one_point_sets_the_scale():
    depth = scene()
    valid = torch.zeros_like(depth, dtype=torch.bool)
    valid[0, 50, 50] = True
    assert torch.allclose(complete_depth(depth / math.pi, depth, valid), depth, rtol=1e-5)
