"""Views: image and depth stay aligned to the pixel, and no depth appears that nobody measured."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mforce.training.data.points import rasterize
from mforce.training.data.views import move_depth, numbered_view, plan_view, view_depth, view_image


def checkers(rows: int, columns: int, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares with a color each, and a depth that the color tells: 1 + red + 256 * green."""
    y, x = np.mgrid[:rows, :columns] // cell
    image = np.stack([x * 7 % 256, y * 11 % 256, np.zeros_like(x)], -1).astype(np.uint8)
    return image, (1.0 + image[..., 0] + 256.0 * image[..., 1]).astype(np.float32)


def depth_told_by(image: torch.Tensor) -> torch.Tensor:
    red, green, _ = image.float()
    return 1 + red + 256 * green


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("source", [(64, 64), (64, 96), (160, 96), (128, 128)])
def test_every_cell_of_a_checker_keeps_its_own_depth(source, fit):
    image, depth = checkers(*source, cell=32)
    view = plan_view(source, (64, 64), fit, flip=True)
    small, moved = view_image(image, view), view_depth(depth, view, sparse=False)
    known = moved.isfinite()
    # Around an edge the filter of the image mixes colors: compare where a neighborhood has one depth.
    filled = moved.nan_to_num(-1)[None, None]
    flat = torch.nn.functional.max_pool2d(filled, 9, 1, 4) == -torch.nn.functional.max_pool2d(-filled, 9, 1, 4)
    inner = known & flat[0, 0]
    assert inner.float().mean() > 0.1
    torch.testing.assert_close(depth_told_by(small)[inner], moved[inner])


def test_without_a_change_of_size_a_view_is_a_slice():
    image, depth = checkers(70, 90, cell=3)
    view = plan_view((70, 90), (48, 90), at=(1.0, 0.0))
    assert view.placement.crop == (22, 0, 48, 90)
    assert np.array_equal(view_image(image, view).permute(1, 2, 0), image[22:])
    assert np.array_equal(view_depth(depth, view, sparse=False), depth[22:])


def test_the_image_is_what_pillow_makes_of_the_part():
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    part = Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS, box=(20, 0, 80, 60))
    assert np.array_equal(view_image(image, plan_view((60, 100), (32, 32))).permute(1, 2, 0), np.asarray(part))


@settings(max_examples=40, deadline=None)
@given(
    source=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    canvas=st.tuples(st.sampled_from([16, 32, 48]), st.sampled_from([16, 32, 48])),
    fit=st.sampled_from(["crop", "pad"]),
    flip=st.booleans(),
    seed=st.integers(0, 99),
)
@example(source=(16, 23), canvas=(32, 48), fit="pad", flip=False, seed=1)  # a measurement on a border of pixels
def test_sparse_measurements_are_moved_and_never_made(source, canvas, fit, flip, seed):
    random = np.random.default_rng(seed)
    depth = np.full(source, np.nan, dtype=np.float32)
    count = max(1, depth.size // 20)
    places = random.choice(depth.size, count, replace=False)
    depth.flat[places] = np.arange(1, count + 1)
    view = plan_view(source, canvas, fit, flip=flip)
    moved = view_depth(depth, view, sparse=True).numpy()
    kept = moved[np.isfinite(moved)]
    assert len(np.unique(kept)) == len(kept)  # none twice
    for value in kept:
        (y,), (x,) = np.nonzero(depth == value)
        (row,), (column,) = np.nonzero(moved == value)
        column = canvas[1] - 1 - column if flip else column
        top, left, height, width = view.placement.crop
        (rows, columns), (x0, _, y0, _) = view.placement.size, view.placement.bars
        expected_row = y0 + (y + 0.5 - top) / height * rows
        expected_column = x0 + (x + 0.5 - left) / width * columns
        rounding = 1e-9  # a border belongs to the pixel on either side
        assert row - rounding <= expected_row <= row + 1 + rounding
        assert column - rounding <= expected_column <= column + 1 + rounding


def test_a_larger_dense_map_has_no_holes_and_a_sparse_one_single_pixels():
    depth = torch.arange(1.0, 10.0).view(3, 3)
    dense, sparse = (move_depth(depth, (6, 6), sparse=sparse) for sparse in (False, True))
    assert torch.equal(dense, depth.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert sparse.isfinite().sum() == 9
    assert torch.equal(sparse[1::2, 1::2], depth)


def test_random_views_repeat_and_leave_captions_true():
    def view(number: int, caption: str, key: str = "a"):
        return numbered_view(number, 0, key, caption, (100, 300), (64, 64), "crop")

    assert view(0, "a cube") == plan_view((100, 300), (64, 64))
    views = [view(n, "a cube") for n in range(1, 40)]
    assert views == [view(n, "a cube") for n in range(1, 40)]
    assert 8 < sum(v.flip for v in views) < 32
    assert len({v.placement.crop for v in views}) > 30
    assert min(v.placement.crop[1] for v in views) >= 0
    assert max(v.placement.crop[1] + v.placement.crop[3] for v in views) <= 300
    assert not any(view(n, "a cube on the left").flip for n in range(1, 40))


def test_points_are_where_they_were_measured_and_the_nearest_is_seen():
    points = np.array([[0.2, 0.9, 5], [3.9, 1.0, 2], [3.1, 1.99, 7], [4.0, 0, 1], [1, 1, -3], [2, 0, np.nan]])
    depth = rasterize(points, (2, 4))
    assert depth[0, 0] == 5
    assert depth[1, 3] == 2
    assert np.isfinite(depth).sum() == 2
    with pytest.raises(ValueError, match="none of the 1 points"):
        rasterize(points[3:4], (2, 4))
    with pytest.raises(ValueError, match=r"shape \(2, 4\)"):
        rasterize(np.ones((2, 4)), (2, 4))
