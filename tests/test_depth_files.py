"""Depth maps on disk, read and written."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from mforce.mforce_core.depth.files import LEVELS, Encoding, read_depth, write_16_bit, write_exr, write_npy


@pytest.fixture
def depth():
    values = np.random.default_rng(0).uniform(1, 9, (20, 30)).astype(np.float32)
    values[3, 4] = np.nan
    return values


def save(path, values):
    """Write an array as the kind of file that the path's ending says, without our own writers."""
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


def save_exr(path, channels, header=None):
    openexr = pytest.importorskip("OpenEXR")
    openexr.File({"type": openexr.scanlineimage, **(header or {})}, channels).write(str(path))
    return path


@pytest.mark.parametrize("name", ["d.npy", "d.exr", "d.tiff"])
def test_float_depth_comes_back_exactly(name, depth, tmp_path):
    path = tmp_path / name
    if name.endswith("exr"):
        pytest.importorskip("OpenEXR")
        write_exr(path, depth)
    elif name.endswith("npy"):
        write_npy(path, depth)
    else:
        save(path, depth)
    np.testing.assert_array_equal(read_depth(path).depth, depth)


@pytest.mark.parametrize("name", ["d.png", "d.tif"])
def test_16_bit_zero_is_missing(name, tmp_path):
    levels = np.array([[0, 1, 1000], [40000, 65535, 0]], dtype=np.uint16)
    read = read_depth(save(tmp_path / name, levels))
    np.testing.assert_array_equal(read.depth, np.where(levels == 0, np.nan, levels))


def test_what_is_written_in_16_bits_reads_back(depth, tmp_path):
    step = write_16_bit(tmp_path / "d.png", depth)
    np.testing.assert_allclose(read_depth(tmp_path / "d.png").depth, depth, atol=0.51 * step)


def test_16_bit_steps_of_a_millimeter(depth, tmp_path):
    assert write_16_bit(tmp_path / "d.png", depth, step=0.001) == 0.001
    levels = np.asarray(Image.open(tmp_path / "d.png"))
    np.testing.assert_array_equal(levels, np.nan_to_num(np.round(depth.astype(np.float64) * 1000)).astype(np.uint16))


def test_one_far_pixel_does_not_use_up_16_bits(depth, tmp_path):
    depth[0, 0] = 1e9
    step = write_16_bit(tmp_path / "d.png", depth)
    read = read_depth(tmp_path / "d.png").depth
    assert read[0, 0] == pytest.approx(step * LEVELS)
    np.testing.assert_allclose(read[1:], depth[1:], atol=0.002)


@pytest.mark.parametrize("name", ["d.png", "d.exr"])
def test_files_say_what_their_numbers_mean(name, depth, tmp_path):
    values = (1 / depth - 0.05) / 2
    encoding = Encoding(disparity=True, scale=2.0, offset=0.05)
    if name.endswith("exr"):
        pytest.importorskip("OpenEXR")
        write_exr(tmp_path / name, values, encoding)
    else:
        write_16_bit(tmp_path / name, values, encoding)
    np.testing.assert_allclose(read_depth(tmp_path / name).depth, depth, rtol=1e-3)


def test_a_damaged_entry_is_named(depth, tmp_path):
    write_16_bit(tmp_path / "d.png", depth, text={"mforce_depth": "nonsense"})
    with pytest.raises(ValueError, match="damaged mforce_depth"):
        read_depth(tmp_path / "d.png")


def test_texts_are_kept(depth, tmp_path):
    text = {"prompt": json.dumps({"1": {"text": "Würfel"}}, ensure_ascii=False)}
    write_16_bit(tmp_path / "d.png", depth, text=text)
    assert Image.open(tmp_path / "d.png").text["prompt"] == text["prompt"]
    openexr = pytest.importorskip("OpenEXR")
    write_exr(tmp_path / "d.exr", depth, attributes=text)
    with openexr.File(str(tmp_path / "d.exr")) as file:
        assert file.header()["prompt"] == text["prompt"]


@pytest.mark.parametrize("channel", ["Z", "R", "RGB"])
def test_exr_has_finite_depth_beside_its_alpha(channel, depth, tmp_path):
    openexr = pytest.importorskip("OpenEXR")
    write_exr(tmp_path / "d.exr", depth, channel=channel)
    with openexr.File(str(tmp_path / "d.exr"), separate_channels=True) as file:
        pixels = {name: part.pixels for name, part in file.channels().items()}
        compression = file.header()["compression"]
    assert set(pixels) == {*channel, "A"}
    assert {array.dtype for array in pixels.values()} == {np.dtype(np.float32)}
    assert compression == openexr.ZIP_COMPRESSION
    np.testing.assert_array_equal(pixels["A"], np.isfinite(depth))
    for name in channel:
        np.testing.assert_array_equal(pixels[name], np.nan_to_num(depth))


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
    values[0, :2] = -3, np.nan
    read = read_depth(save(tmp_path / "d.npy", values))
    assert [word in note for word, note in zip(("1 negative", "1 NaN", "flat wall"), read.notes, strict=True)] == [
        True
    ] * 3
    assert np.isnan(read.depth[0, :2]).all()


def test_the_background_of_renderers_is_missing(tmp_path):
    values = np.array([[1.0, 2.0], [1e10, 3e38]], dtype=np.float32)
    read = read_depth(save(tmp_path / "d.npy", values))
    np.testing.assert_array_equal(read.depth, [[1, 2], [np.nan, np.nan]])
    assert "2 pixels of background" in read.notes[0]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("d.npy", -np.ones((4, 4)), "sign of the depth"),
        ("d.npy", np.full((4, 4), np.nan), "no pixel with a depth"),
        ("d.npy", np.ones((4, 4, 3)), r"shape \(4, 4, 3\)"),
        ("d.npy", np.ones((0, 4)), r"shape \(0, 4\)"),
        ("d.npy", np.array([["a"]]), "array of numbers"),
        ("d.npy", np.array([[{}]], dtype=object), "not a plain .npy"),
        ("d.png", np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "color picture"),
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


@pytest.mark.parametrize("name", ["d.jpg", "d.WEBP"])
def test_a_lossy_picture_is_refused_with_what_to_do(name, tmp_path):
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(tmp_path / name)
    with pytest.raises(
        ValueError, match=r"its compression changes depth: save the map as a 16-bit .*convert it to \.png"
    ):
        read_depth(tmp_path / name)
    Image.open(tmp_path / name).convert("L").save(tmp_path / "d.png")
    assert "read as disparity" in read_depth(tmp_path / "d.png").notes[0]


def test_an_archive_is_named(tmp_path):
    np.savez(tmp_path / "d.npz", depth=np.ones((4, 4)))
    (tmp_path / "d.npz").rename(tmp_path / "d.npy")
    with pytest.raises(ValueError, match="ZIP archive, as PyTorch pickles"):
        read_depth(tmp_path / "d.npy")


@pytest.mark.parametrize("use", [read_depth, lambda path: write_exr(path, np.ones((2, 2)))])
def test_a_missing_openexr_is_named(use, tmp_path, monkeypatch):
    (tmp_path / "d.exr").touch()
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(ModuleNotFoundError, match="pip install OpenEXR"):
        use(tmp_path / "d.exr")


PIXELS = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("others", "depth"),
    [
        ("A R G B", "Z"),
        ("ViewLayer.Combined.R", "ViewLayer.Depth.Z"),
        ("R G B", "Depth.V"),
        ("A", "R"),
        ("", "distance"),
    ],
)
def test_the_depth_channel_is_found(others, depth, tmp_path):
    channels = dict.fromkeys(others.split(), -PIXELS) | {depth: PIXELS}
    read = read_depth(save_exr(tmp_path / "d.exr", channels))
    np.testing.assert_array_equal(read.depth, PIXELS)


def test_a_named_channel_is_used(tmp_path):
    path = save_exr(tmp_path / "d.exr", {"Z": -PIXELS, "fog.Y": PIXELS})
    np.testing.assert_array_equal(read_depth(path, channel="fog.Y").depth, PIXELS)
    np.testing.assert_array_equal(read_depth(path, channel="Y").depth, PIXELS)
    with pytest.raises(ValueError, match=r"the channels Z, fog\.Y, none is B"):
        read_depth(path, channel="B")


def test_depth_is_found_in_a_part_of_its_own(tmp_path):
    openexr = pytest.importorskip("OpenEXR")
    parts = [
        openexr.Part({"type": openexr.scanlineimage}, {name: pixels}, part)
        for part, name, pixels in (("rgba", "R", -PIXELS), ("depth", "Z", PIXELS))
    ]
    openexr.File(parts).write(str(tmp_path / "d.exr"))
    np.testing.assert_array_equal(read_depth(tmp_path / "d.exr").depth, PIXELS)


def test_a_cropped_exr_keeps_its_place(tmp_path):
    window = {"dataWindow": ((1, -1), (2, 0)), "displayWindow": ((0, 0), (3, 1))}
    header = {name: tuple(np.array(corner, dtype=np.int32) for corner in box) for name, box in window.items()}
    read = read_depth(save_exr(tmp_path / "d.exr", {"Z": PIXELS}, header))
    nan = np.nan
    np.testing.assert_array_equal(read.depth, [[nan, 3, 4, nan], [nan] * 4])


def test_exr_without_depth_lists_its_channels(tmp_path):
    path = save_exr(tmp_path / "d.exr", {"A": PIXELS, "mist": PIXELS})
    with pytest.raises(ValueError, match="A, mist"):
        read_depth(path)
