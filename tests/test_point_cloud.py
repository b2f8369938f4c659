"""The point cloud against the release's numbers, and the files read back by another library."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mforce.mforce_core.point_cloud import (
    PointCloud,
    camera_points,
    depth_edges,
    inliers,
    intrinsics_from_fov,
    scaled_edge_threshold,
    unproject,
)
from mforce.mforce_core.point_cloud_files import to_glb, to_ply

GOLDEN = Path(__file__).parent / "golden" / "functions" / "point_cloud.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.fixture
def slope():
    """A smooth (12, 16) depth with nothing to leave out."""
    return torch.linspace(2.0, 2.5, 12)[:, None].repeat(1, 16)


def test_edges_valid_pixels_and_points_are_those_of_the_release(golden):
    depth = golden["depth"]
    assert torch.equal(depth_edges(depth), golden["edge_mask"])
    cloud = unproject(depth)
    assert torch.equal(cloud.pixels, golden["valid"].flatten().nonzero().squeeze(1))
    torch.testing.assert_close(cloud.points, golden["points"], rtol=0, atol=5e-7)


def test_a_slanted_floor_is_no_edge_at_any_resolution():
    """Depth 1 / row, as of a floor: whole at 512 pixels, and with the scaled threshold at 128 too."""
    kept = []
    for side in (512, 128):
        below_horizon = (torch.arange(side) + 0.5) / side + 0.25
        floor = (1 / below_horizon)[:, None].repeat(1, side)
        kept.append((~depth_edges(floor, scaled_edge_threshold(side))).float().mean())
        coarse = (~depth_edges(floor)).float().mean()
    assert kept == [1, 1]
    assert coarse < 0.9


def test_outliers_are_those_of_the_release(golden):
    assert torch.equal(inliers(golden["points"]), golden["inlier"])
    cloud = unproject(golden["depth"], remove_outliers=True)
    torch.testing.assert_close(cloud.points, golden["points"][golden["inlier"]], rtol=0, atol=5e-7)


def test_missing_depth_has_no_point(slope):
    for row, value in enumerate([0.0, -1.0, math.nan, math.inf]):
        slope[3 * row, 0] = value
    pixels = unproject(slope, edge_threshold=None).pixels.tolist()
    assert len(pixels) == slope.numel() - 4
    assert not {3 * row * 16 for row in range(4)} & set(pixels)


def test_valid_mask_leaves_pixels_out(slope):
    valid = torch.ones(12, 16, dtype=torch.bool)
    valid[:, 8:] = False
    cloud = unproject(slope, valid=valid, edge_threshold=None)
    assert len(cloud) == 12 * 8
    assert cloud.points[:, 0].max() < 0


def test_axes_are_gltf():
    depth = torch.full((8, 8), 3.0)
    points = unproject(depth).points.reshape(8, 8, 3)
    top_left, bottom_right = points[0, 0], points[7, 7]
    assert top_left[0] < 0 < bottom_right[0]
    assert bottom_right[1] < 0 < top_left[1]
    assert (points[..., 2] == -3.0).all()


@settings(max_examples=25, deadline=None)
@given(fov=st.floats(10, 150), height=st.integers(2, 20), width=st.integers(2, 20))
def test_a_field_of_view_and_its_intrinsics_agree(fov, height, width):
    depth = torch.rand(height, width, generator=torch.Generator().manual_seed(0)) + 1
    by_fov = unproject(depth, fov_degrees=fov, edge_threshold=None).points
    matrix = intrinsics_from_fov(height, width, fov)
    by_matrix = unproject(depth, intrinsics=matrix, edge_threshold=None).points
    assert torch.equal(by_fov, by_matrix)
    # The outer border of the picture, half a pixel outside the last column, is at half the field of view.
    x, z = by_fov[width - 1, 0].double(), -by_fov[width - 1, 2].double()
    assert x / z * width / (width - 1) == pytest.approx(math.tan(math.radians(fov) / 2), rel=1e-5)


def test_camera_points_project_back_to_their_pixels(slope):
    matrix = intrinsics_from_fov(12, 16, 50.0)
    projected = camera_points(slope, matrix) @ matrix.T
    projected = projected[..., :2] / projected[..., 2:]
    assert torch.allclose(projected[0, :, 0], (torch.arange(16) + 0.5) / 16)
    assert torch.allclose(projected[:, 0, 1], (torch.arange(12) + 0.5) / 12)


def test_limit_is_repeatable_and_keeps_the_order(slope):
    first, second = (unproject(slope, max_points=50) for _ in range(2))
    assert len(first) == 50
    assert torch.equal(first.points, second.points)
    assert (first.pixels.diff() > 0).all()


def test_centred_cloud_has_its_median_at_the_origin(golden):
    cloud = unproject(golden["depth"], centre=True)
    assert cloud.points.median(dim=0).values.abs().max() == 0
    shift = golden["points"] - cloud.points
    assert shift.std(dim=0).max() < 1e-6


@pytest.mark.parametrize("as_bytes", [True, False])
def test_colours_follow_their_pixels(slope, as_bytes):
    rgb = torch.randint(0, 256, (12, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    slope[5, 5] = math.nan
    cloud = unproject(slope, rgb=rgb if as_bytes else rgb.float() / 255)
    assert 0 < len(cloud) < slope.numel()
    assert torch.equal(cloud.colors, rgb.reshape(-1, 3)[cloud.pixels])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": torch.ones(1, 4, 4)}, "one map at a time"),
        ({"depth": torch.zeros(4, 4)}, "no pixel to make a point of"),
        ({"rgb": torch.zeros(4, 5, 3)}, r"rgb must have shape \(4, 4, 3\)"),
        ({"valid": torch.ones(3, 4)}, r"valid must have shape \(4, 4\)"),
        ({"fov_degrees": 180.0}, "between 0 and 180"),
        ({"fov_degrees": math.nan}, "between 0 and 180"),
        ({"edge_threshold": -1.0}, "zero or more"),
        ({"intrinsics": torch.eye(4)}, r"shape \(3, 3\)"),
        ({"intrinsics": torch.zeros(3, 3)}, "positive focal lengths"),
        ({"intrinsics": torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])}, "in pixels"),
    ],
)
def test_bad_input_is_named(arguments, message):
    arguments = {"depth": torch.ones(4, 4), **arguments}
    with pytest.raises(ValueError, match=message):
        unproject(arguments.pop("depth"), **arguments)


def test_a_cloud_too_small_for_statistics_is_kept():
    assert inliers(torch.rand(4, 3)).all()


@pytest.mark.parametrize(("write", "kind"), [(to_ply, "ply"), (to_glb, "glb")])
@pytest.mark.parametrize("coloured", [True, False])
def test_files_read_back(write, kind, coloured, slope):
    trimesh = pytest.importorskip("trimesh")
    rgb = torch.randint(0, 256, (12, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    cloud = unproject(slope, rgb=rgb if coloured else None, centre=True)
    data = write(cloud)
    assert data == write(cloud)
    read = trimesh.load(io.BytesIO(data), file_type=kind)
    if kind == "glb":
        (read,) = read.geometry.values()
    np.testing.assert_array_equal(np.asarray(read.vertices, dtype=np.float32), cloud.points.numpy())
    if coloured:
        np.testing.assert_array_equal(np.asarray(read.colors)[:, :3], cloud.colors.numpy())


def test_a_selection_keeps_points_and_pixels_together():
    cloud = PointCloud(torch.arange(6.0).reshape(2, 3), None, torch.tensor([4, 9]))
    chosen = cloud.select(torch.tensor([False, True]))
    assert chosen.pixels.tolist() == [9]
    assert chosen.points.tolist() == [[3.0, 4.0, 5.0]]
