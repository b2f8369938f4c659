"""A picture's placement on the canvas: inside it, in its proportions, and back again to the pixel."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mforce.mforce_core.placement import CROP, FITS, KEEP, KEEP_ASPECT, LETTERBOX, STRETCH, nearest_size, place
from mforce.mforce_core.scene3d.point_cloud import intrinsics_from_fov

sides = st.integers(1, 3000)
cells = st.integers(1, 8).map(lambda count: 16 * count)


@settings(max_examples=200, deadline=None)
@given(st.tuples(sides, sides), st.tuples(cells, cells), st.sampled_from([CROP, LETTERBOX, STRETCH, KEEP_ASPECT]))
def test_a_placement_stays_inside_and_keeps_the_proportions(source, canvas, fit):
    placed = place(source, canvas, fit)
    top, left, height, width = placed.crop
    assert top >= 0
    assert left >= 0
    assert 0 < height <= source[0] - top
    assert 0 < width <= source[1] - left
    assert min(*placed.size, 1 + min(placed.bars)) >= 1
    if fit == KEEP_ASPECT:
        assert not any(side % 16 for side in placed.canvas)
    else:
        assert placed.canvas == canvas
    if fit == CROP:
        assert placed.bars == (0, 0, 0, 0)
        assert height == source[0] or width == source[1]
    else:
        assert placed.crop == (0, 0, *source)
    if fit == LETTERBOX:
        assert placed.size[0] == canvas[0] or placed.size[1] == canvas[1]
        assert abs(placed.bars[0] - placed.bars[1]) <= 1
        assert abs(placed.bars[2] - placed.bars[3]) <= 1
    if fit in (CROP, LETTERBOX):
        # Both scales agree up to the rounding of a side to whole pixels.
        assert abs(height * placed.size[1] - width * placed.size[0]) <= max(height, width, *placed.size)


@pytest.mark.parametrize("source", [(203, 310), (310, 203), (7, 64), (129, 128)])
def test_letterbox_and_crop_agree_with_pillow(source):
    """The sizes of ImageOps.contain, and the crop of ImageOps.fit, which cuts in fractions of pixels."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8))
    contained = ImageOps.contain(image, (128, 96), Image.Resampling.LANCZOS)
    letterboxed = place(source, (96, 128), LETTERBOX)
    assert letterboxed.size == contained.size[::-1]
    assert np.array_equal(letterboxed.place_photo(image)[letterboxed.content], np.asarray(contained))
    top, left, height, width = place(source, (96, 128), CROP).crop
    scale = max(96 / source[0], 128 / source[1])
    assert abs(height - 96 / scale) <= 0.5
    assert abs(width - 128 / scale) <= 0.5
    assert abs((top + height / 2) - source[0] / 2) <= 0.5
    assert abs((left + width / 2) - source[1] / 2) <= 0.5


def test_a_crop_lies_where_it_is_told():
    crops = [place((100, 300), (64, 64), CROP, at=(0.5, at)).crop[1] for at in (0.0, 0.25, 0.5, 1.0)]
    assert crops == [0, 50, 100, 200]
    # To whole pixels, a half towards the top left.
    assert [place((100, 103), (64, 64), CROP, at=(0.5, at)).crop[1] for at in (0.1, 0.25, 0.5, 0.9)] == [0, 1, 1, 3]


@pytest.mark.parametrize("fit", FITS)
def test_what_is_placed_is_brought_back(fit):
    source = (96, 160)
    depth = 2 + torch.rand(1, *source, generator=torch.Generator().manual_seed(0))
    depth[0, 30, 40] = torch.nan
    placed = place(source, (64, 64), fit)
    canvas = placed.place_depth(depth)
    assert tuple(canvas.shape[1:]) == placed.canvas
    assert torch.isin(canvas[canvas.isfinite()], depth).all()
    assert not canvas[~placed.inside(1)].isfinite().any()
    back = placed.restore_depth(canvas)
    assert tuple(back.shape[1:]) == source
    top, left, height, width = placed.crop
    assert back[0, top : top + height, left : left + width].isfinite().float().mean() > 0.9
    if placed.size == source:
        torch.testing.assert_close(back, depth, equal_nan=True, rtol=0, atol=0)


#: Bars above and below, bars left and right, a cut off the middle, and every other fit.
PLACEMENTS = [
    *(place((96, 160), (64, 64), fit) for fit in FITS),
    place((96, 160), (32, 96), LETTERBOX),
    place((96, 160), (64, 64), CROP, at=(0.0, 0.9)),
    place((96, 160), (32, 96), CROP, at=(0.8, 0.0)),
]


@pytest.mark.parametrize("placed", PLACEMENTS)
def test_pictures_come_back_where_they_were(placed):
    """A smooth ramp survives the way there and back, at the same place."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 160), indexing="ij")
    image = torch.stack((y, x, x * y))[None]
    back = placed.restore_image(placed.place_image(image))
    assert back.shape == image.shape
    top, left, height, width = placed.crop
    inner = (..., slice(top + 4, top + height - 4), slice(left + 4, left + width - 4))
    assert (back - image)[inner].abs().max() < 0.02
    outside = torch.ones(96, 160, dtype=torch.bool)
    outside[top : top + height, left : left + width] = False
    assert not back[..., outside].any()


@pytest.mark.parametrize("placed", [placed for placed in PLACEMENTS if placed != place((96, 160), (64, 64), STRETCH)])
def test_the_restored_camera_looks_along_the_same_rays(placed):
    """Through the corners of the used part, on the canvas and in the source; a stretched picture has two shapes."""
    camera = intrinsics_from_fov(*placed.canvas, 60.0)
    restored = placed.restore_cameras(camera[None])[0]
    rows, columns = placed.content
    (canvas_height, canvas_width), (height, width) = placed.canvas, placed.source
    top, left, used_height, used_width = placed.crop
    for on_canvas, in_source in (((rows.start, columns.start), (0, 0)), ((rows.stop, columns.stop), (1, 1))):
        y, x = on_canvas[0] / canvas_height, on_canvas[1] / canvas_width
        v, u = (top + in_source[0] * used_height) / height, (left + in_source[1] * used_width) / width
        rays = [(x - camera[0, 2]) / camera[0, 0], (y - camera[1, 2]) / camera[1, 1]]
        wanted = [(u - restored[0, 2]) / restored[0, 0], (v - restored[1, 2]) / restored[1, 1]]
        # Sides are rounded to whole pixels, and the source's pixels are square.
        torch.testing.assert_close(torch.stack(rays), torch.stack(wanted), atol=0.01, rtol=0)


def test_the_camera_of_a_stretched_picture_has_square_pixels_and_the_same_width_of_view():
    placed = place((96, 160), (64, 64), STRETCH)
    restored = placed.restore_cameras(intrinsics_from_fov(64, 64, 60.0)[None])[0]
    torch.testing.assert_close(restored, intrinsics_from_fov(96, 160, 60.0))


def test_margins_of_a_photo_continue_it():
    image = Image.new("RGB", (30, 20), (9, 99, 199))
    assert (place((20, 30), (32, 32), LETTERBOX).place_photo(image) == (9, 99, 199)).all()


def test_keep_size_says_what_it_needs():
    with pytest.raises(ValueError, match="30x20 and fit is 'keep size', which needs multiples of 16"):
        place((20, 30), (32, 32), KEEP)


@pytest.mark.parametrize("source", [(240, 320), (1080, 1920), (64, 64), (400, 300)])
def test_the_nearest_size_has_the_proportions_on_the_grid(source):
    height, width = nearest_size(source, 128 * 128)
    assert height % 16 == width % 16 == 0
    assert abs(math.log(height * width / 128**2)) < 0.3
    assert abs(math.log(width / height * source[0] / source[1])) < 0.15


def test_of_two_sizes_of_the_same_proportions_the_one_of_nearer_pixels_is_taken():
    assert nearest_size((64, 64), 100**2) == (96, 96)
    assert nearest_size((64, 64), 110**2) == (112, 112)


def test_the_nearest_size_of_a_thin_strip_is_one_cell_high():
    assert nearest_size((10, 4000), 128 * 128)[0] == 16
