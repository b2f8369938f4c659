"""Reading pictures and depth maps, fitting them to the canvas, and the all-or-nothing output folder."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("typer")

from mforce.cli.cloud_view import draw_cloud
from mforce.cli.depth_files import place_depth, read_depth, resample_depth, write_16_bit, write_exr
from mforce.cli.depth_preview import depth_preview
from mforce.cli.fitting import plan_fit
from mforce.cli.images import place_picture, read_picture
from mforce.cli.output_folder import default_output, output_folder
from mforce.cli.settings import Settings, parse_size


@pytest.fixture
def depth():
    values = np.random.default_rng(0).uniform(1, 9, (20, 30)).astype(np.float32)
    values[3, 4] = np.nan
    return values


def save(path, values):
    """Write an array as the kind of file that the path's ending says."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".exr":
        write_exr(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("name", ["d.npy", "d.exr", "d.tiff"])
def test_float_depth_comes_back_exactly(name, depth, tmp_path):
    if name.endswith("exr"):
        pytest.importorskip("OpenEXR")
    read = read_depth(save(tmp_path / name, depth))
    np.testing.assert_array_equal(read.depth, depth)
    assert "1 NaN or infinite" in read.notes[0]


@pytest.mark.parametrize("name", ["d.png", "d.tif"])
def test_16_bit_zero_is_missing(name, tmp_path):
    levels = np.array([[0, 1, 1000], [40000, 65535, 0]], dtype=np.uint16)
    read = read_depth(save(tmp_path / name, levels))
    np.testing.assert_array_equal(read.depth, np.where(levels == 0, np.nan, levels))


def test_what_is_written_in_16_bits_reads_back(depth, tmp_path):
    scale = write_16_bit(tmp_path / "d.png", depth)
    read = read_depth(tmp_path / "d.png").depth * scale["depth_per_step"]
    np.testing.assert_allclose(read, depth, atol=scale["depth_per_step"])


def test_one_far_pixel_does_not_use_up_16_bits(depth, tmp_path):
    depth[0, 0] = 1e9
    scale = write_16_bit(tmp_path / "d.png", depth)
    read = read_depth(tmp_path / "d.png").depth * scale["depth_per_step"]
    assert read[0, 0] == pytest.approx(scale["farthest"])
    np.testing.assert_allclose(read[1:], depth[1:], atol=0.002)


def test_disparity_is_inverted(tmp_path):
    path = save(tmp_path / "d.npy", np.array([[0.0, 0.5], [2.0, 4.0]], dtype=np.float32))
    np.testing.assert_array_equal(read_depth(path, disparity=True).depth, [[np.nan, 2.0], [0.5, 0.25]])


def test_mask_leaves_pixels_out(depth, tmp_path):
    mask = np.full(depth.shape, 255, dtype=np.uint8)
    mask[:, :10] = 0
    path = save(tmp_path / "d.npy", depth)
    read = read_depth(path, mask=save(tmp_path / "mask.png", mask)).depth
    assert np.isnan(read[:, :10]).all()
    np.testing.assert_array_equal(read[:, 10:], depth[:, 10:])
    with pytest.raises(ValueError, match="must have the same size"):
        read_depth(path, mask=save(tmp_path / "small.png", mask[:5]))


def test_negative_and_constant_depth_are_said(tmp_path):
    values = np.full((4, 4), 3.0, dtype=np.float32)
    values[0, 0] = -3
    read = read_depth(save(tmp_path / "d.npy", values))
    assert "1 negative" in read.notes[0]
    assert "flat wall" in read.notes[1]
    assert np.isnan(read.depth[0, 0])


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("d.npy", -np.ones((4, 4)), "sign of the depth"),
        ("d.npy", np.full((4, 4), np.nan), "no pixel with a depth"),
        ("d.npy", np.ones((4, 4, 3)), r"shape \(4, 4, 3\)"),
        ("d.npy", np.ones((0, 4)), r"shape \(0, 4\)"),
        ("d.npy", np.array([["a"]]), "array of numbers"),
        ("d.npy", np.array([[{}]], dtype=object), "not a plain .npy"),
        ("d.png", np.ones((4, 4), dtype=np.uint8), "only 8 bits"),
        ("d.png", np.ones((4, 4, 3), dtype=np.uint8), "colour picture"),
    ],
)
def test_unusable_depth_is_named(name, values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_depth(save(tmp_path / name, values))


@pytest.mark.parametrize("name", ["d.npy", "d.exr", "d.png", "d.tif"])
def test_foreign_bytes_are_named(name, tmp_path):
    if name.endswith("exr"):
        pytest.importorskip("OpenEXR")
    (tmp_path / name).write_bytes(b"not what the ending says")
    with pytest.raises(ValueError, match=name):
        read_depth(tmp_path / name)
    with pytest.raises(ValueError, match="does not exist"):
        read_depth(tmp_path / ("no-" + name))


def test_exr_without_depth_lists_its_channels(tmp_path):
    openexr = pytest.importorskip("OpenEXR")
    pixels = np.ones((2, 2), dtype=np.float32)
    openexr.File({"type": openexr.scanlineimage}, {"A": pixels, "mist": pixels}).write(str(tmp_path / "d.exr"))
    with pytest.raises(ValueError, match="A, mist"):
        read_depth(tmp_path / "d.exr")


def test_shrinking_a_sparse_map_keeps_its_measurements():
    sparse = np.full((64, 64), np.nan, dtype=np.float32)
    sparse[5::16, 9::16] = np.arange(16, dtype=np.float32).reshape(4, 4) + 1
    small = resample_depth(sparse, (8, 8))
    assert sorted(small[np.isfinite(small)]) == list(range(1, 17))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_resampling_never_invents_depth(rows, columns, height, width):
    depth = np.random.default_rng(rows * 41 + columns).uniform(1, 2, (rows, columns)).astype(np.float32)
    resampled = resample_depth(depth, (width, height))
    assert resampled.shape == (height, width)
    assert np.isin(resampled, depth).all()


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.integers(1, 8),
    st.integers(1, 8),
    st.sampled_from(["pad", "crop"]),
)
def test_a_fit_stays_inside_and_keeps_the_shape(width, height, columns, rows, how):
    canvas = columns * 16, rows * 16
    fit = plan_fit((width, height), canvas, how)
    for box, limits in ((fit.box, (width, height)), (fit.content, canvas)):
        assert 0 <= box[0] < box[2] <= limits[0]
        assert 0 <= box[1] < box[3] <= limits[1]
    used = fit.box[2] - fit.box[0], fit.box[3] - fit.box[1]
    if how == "pad":
        assert fit.content_size[0] == canvas[0] or fit.content_size[1] == canvas[1]
        assert used == (width, height)
    else:
        assert fit.content_size == canvas
        assert used[0] == width or used[1] == height
    # Both scales agree up to the rounding of a side to whole pixels.
    assert abs(used[0] * fit.content_size[1] - used[1] * fit.content_size[0]) <= max(*used, *fit.content_size)


def test_what_is_placed_is_cut_out_again(depth):
    fit = plan_fit((30, 20), (32, 32), "pad")
    canvas = place_depth(depth, fit)
    assert canvas.shape == (32, 32)
    assert np.isnan(canvas[0]).all()
    np.testing.assert_array_equal(fit.cut(canvas), resample_depth(depth, (32, 21)))


def test_margins_continue_the_picture():
    image = Image.new("RGB", (30, 20), (9, 99, 199))
    assert (place_picture(image, plan_fit((30, 20), (32, 32), "pad")) == (9, 99, 199)).all()


def test_transparency_is_put_on_white_and_said(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "p.png")
    picture = read_picture(tmp_path / "p.png")
    assert picture.image.getpixel((0, 0)) == (255, 255, 255)
    assert "transparent" in picture.notes[0]
    Image.new("RGBA", (4, 4), (255, 0, 0, 255)).save(tmp_path / "p.png")
    assert read_picture(tmp_path / "p.png").notes == ()


def test_camera_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "p.jpg", exif=exif)
    assert read_picture(tmp_path / "p.jpg").image.size == (4, 8)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "LA", "1"])
def test_any_mode_becomes_rgb(mode, tmp_path):
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    Image.new(mode, (4, 4)).save(path)
    assert read_picture(path).image.mode == "RGB"


def test_16_bit_grey_keeps_its_tones(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "p.png")
    grey = np.asarray(read_picture(tmp_path / "p.png").image)[0, :, 0]
    assert grey.tolist() == [0, 128, 255]


def test_unreadable_pictures_are_named(tmp_path):
    (tmp_path / "p.png").write_bytes(b"text")
    with pytest.raises(ValueError, match="not an image"):
        read_picture(tmp_path / "p.png")
    Image.effect_noise((64, 64), 50).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_picture(tmp_path / "cut.png")


def test_preview_is_warm_where_it_is_near():
    preview = depth_preview(np.array([[1.0, 10.0, np.nan]], dtype=np.float32)).astype(int)
    near, far, missing = preview[0]
    assert near[0] > near[2]
    assert far[2] > far[0]
    assert len(set(missing)) == 1


def test_nearer_points_hide_farther_ones():
    points = np.array([[0.0, 0.0, -1.0], [0.0, 0.0, -2.0], [0.0, 0.0, -2.1]])
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    view = draw_cloud(points, colors, fov=60, size=(9, 9), yaw=0, pitch=0)
    assert view[4, 4].tolist() == [255, 0, 0]


def test_the_camera_orbits_to_the_named_side():
    """From the right, a near point moves left of a far one behind it."""
    points = np.array([[0.0, 0.0, -1.0], [0.0, 0.0, -1.5], [0.0, 0.0, -2.0]])
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)

    def column(color, **view):
        picture = draw_cloud(points.repeat(60, 0), colors.repeat(60, 0), fov=60, size=(64, 64), **view)
        return np.nonzero((picture == color).all(-1))

    red, blue = (column(c, yaw=30, pitch=0)[1].mean() for c in ([255, 0, 0], [0, 0, 255]))
    assert red < blue
    red, blue = (column(c, yaw=0, pitch=30)[0].mean() for c in ([255, 0, 0], [0, 0, 255]))
    assert red > blue


def test_an_interrupted_output_leaves_nothing(tmp_path):
    path = tmp_path / "new" / "parents" / "out"

    def interrupted() -> None:
        with output_folder(path) as work:
            (work / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_replaced_only_when_finished(tmp_path):
    path = tmp_path / "out"
    with output_folder(path) as work:
        (work / "metadata.json").write_text("first")
    with pytest.raises(ValueError, match="--overwrite"), output_folder(path):
        pass
    with pytest.raises(RuntimeError), output_folder(path, overwrite=True):
        raise RuntimeError
    assert (path / "metadata.json").read_text() == "first"
    with output_folder(path, overwrite=True) as work:
        (work / "other").write_text("second")
    assert [file.name for file in path.iterdir()] == ["other"]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_foreign_folders_are_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with (
        pytest.raises(ValueError, match="not written by mforce"),
        output_folder(tmp_path / "thesis", overwrite=True),
    ):
        pass
    assert (tmp_path / "thesis" / "chapter").exists()


def test_an_empty_folder_is_used_but_not_the_current_one(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    with output_folder(tmp_path / "out") as work:
        (work / "file").write_text("x")
    assert (tmp_path / "out" / "file").exists()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="current folder"), output_folder(tmp_path / "here"):
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ValueError, match="cannot be written"), output_folder(tmp_path / "out"):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_default_names_count_up(tmp_path):
    assert default_output("joint", tmp_path).name == "joint-001"
    (tmp_path / "joint-001").mkdir()
    assert default_output("joint", tmp_path).name == "joint-002"


def test_settings_survive_json():
    chosen = Settings("joint", "a ball", size=(64, 32), tilt=5.0, seed=9)
    assert Settings.from_dict(chosen.to_dict()) == chosen
    with pytest.raises(ValueError, match="colour"):
        Settings.from_dict({**chosen.to_dict(), "colour": 1})
    with pytest.raises(ValueError, match="incomplete"):
        Settings.from_dict({"seed": 1})


def test_sizes_are_width_by_height():
    assert parse_size("512x384") == (512, 384)
    assert parse_size("256") == (256, 256)
    assert parse_size(None) is None
