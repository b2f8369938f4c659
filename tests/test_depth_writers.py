"""Depth, masks and gray pictures as other libraries write them, with what a format can say beside the numbers."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mforce.mforce_core.depth.files import read_depth, write_16_bit
from mforce.mforce_core.depth.masks import read_mask
from mforce.mforce_core.picture.reading import read_picture

tifffile = pytest.importorskip("tifffile")
cv2 = pytest.importorskip("cv2")

METERS = np.random.default_rng(0).uniform(1.5, 20, (24, 40)).astype(np.float32)
MILLIMETERS = (METERS * 1000).astype(np.uint16)
HOLE = np.zeros(METERS.shape, bool)
HOLE[3:6, 4:9] = True
#: What turns an array upright, by the numbers of Exif.
UPRIGHT = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}  # fmt: skip


def holes(values):
    return np.where(HOLE, np.nan, values.astype(np.float64)).astype(np.float32)


def png(path, rows, bits, color, *chunks):
    """A PNG by its specification, with chunks before its pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], bits, color, 0, 0, 0)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


@pytest.mark.parametrize(
    ("values", "void"),
    [(METERS, "-9999"), (METERS, "32767"), (METERS, "9.96921e+36"), (MILLIMETERS, "25000"), (MILLIMETERS, "65535")],
)
def test_gdal_s_value_for_no_data_is_missing(tmp_path, values, void):
    numbers = np.where(HOLE, values.dtype.type(float(void)), values)
    tifffile.imwrite(tmp_path / "d.tif", numbers, extratags=[(42113, "s", 0, void, True)])
    read = read_depth(tmp_path / "d.tif")
    np.testing.assert_array_equal(read.depth, holes(values))
    assert f"15 pixels of {float(void):g}, its sign for no data" in " ".join(read.notes)


def test_a_level_that_a_png_calls_transparent_is_missing(tmp_path):
    numbers = np.where(HOLE, 20001, MILLIMETERS).astype(">u2")
    read = read_depth(png(tmp_path / "d.png", numbers, 16, 0, (b"tRNS", struct.pack(">H", 20001))))
    np.testing.assert_array_equal(read.depth, np.where(numbers == 20001, np.nan, numbers).astype(np.float32))
    assert read.notes == (f"d.png has {(numbers == 20001).sum()} transparent pixels; they count as missing.",)
    white = np.asarray(read_picture(tmp_path / "d.png").image)
    assert (white[HOLE] == 255).all()
    np.testing.assert_allclose(white[~HOLE][:, 0], numbers[~HOLE] / 257, atol=0.51)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "tRNS"])
def test_transparent_pixels_of_8_bits_are_missing(tmp_path, mode):
    gray = np.where(HOLE, 7, MILLIMETERS // 128 + 60).astype(np.uint8)
    if mode == "tRNS":
        png(tmp_path / "d.png", gray, 8, 0, (b"tRNS", struct.pack(">H", 7)))
    else:
        alpha = np.where(HOLE, 0, 255).astype(np.uint8)
        Image.fromarray(np.stack([*[gray] * (len(mode) - 1), alpha], -1)).save(tmp_path / "d.png")
    found = read_depth(tmp_path / "d.png").depth
    assert np.array_equal(np.isnan(found), HOLE)
    Image.fromarray(gray).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(found[~HOLE], read_depth(tmp_path / "opaque.png").depth[~HOLE])


def test_an_alpha_of_0_everywhere_says_nothing(tmp_path):
    gray = (MILLIMETERS // 128).astype(np.uint8)
    Image.fromarray(np.stack([gray, 0 * gray], -1)).save(tmp_path / "d.png")
    read = read_depth(tmp_path / "d.png")
    assert np.isfinite(read.depth).all()
    assert "d.png has an alpha of 0 everywhere; it was not used." in read.notes


@pytest.mark.parametrize(
    ("name", "values", "last"),
    [
        ("d.png", MILLIMETERS, 65535),
        ("d.tif", MILLIMETERS, 65535),
        ("d.npy", MILLIMETERS, 65535),
        ("f.npy", MILLIMETERS.astype(np.float32), 65535),
        ("g.npy", MILLIMETERS.astype(np.float64), 65535),
        ("i.npy", MILLIMETERS.astype(np.int32), 2**31 - 1),
        ("j.npy", MILLIMETERS.astype(np.int32), 65535),
    ],
)
def test_the_last_level_far_behind_all_others_is_missing(tmp_path, name, values, last):
    def save(numbers):
        path = tmp_path / name
        np.save(path, numbers) if path.suffix == ".npy" else Image.fromarray(numbers).save(path)
        return path

    numbers = np.where(HOLE, values.dtype.type(last), values)
    read = read_depth(save(numbers))
    np.testing.assert_array_equal(read.depth, holes(values))
    assert read.notes == (f"{name} has 15 pixels of {last}, the last level; they count as missing.",)
    near = read_depth(save(numbers), disparity=True).depth
    assert np.isfinite(near).all()
    numbers[0, 0] = last // 2 + 1  # no gap, as in a map that was stretched
    assert np.isfinite(read_depth(save(numbers)).depth).all()


def test_the_last_level_of_a_file_that_knows_its_levels_is_depth(tmp_path):
    depth = np.where(HOLE, 1000, METERS).astype(np.float32)
    write_16_bit(tmp_path / "d.png", depth)
    assert (np.asarray(Image.open(tmp_path / "d.png"))[HOLE] == 65535).all()
    assert np.isfinite(read_depth(tmp_path / "d.png").depth).all()


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("values", [METERS, MILLIMETERS], ids=["floats", "levels"])
def test_depth_and_masks_are_turned_as_their_tags_say(tmp_path, orientation, values):
    wanted = UPRIGHT[orientation](values).astype(np.float32)
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "d.tif", values, extratags=tags)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.tif").depth, wanted)
    exif = Image.Exif()
    exif[274] = orientation
    if values is MILLIMETERS:
        Image.fromarray(values).save(tmp_path / "d.png", exif=exif)
        np.testing.assert_array_equal(read_depth(tmp_path / "d.png").depth, wanted)
    valid = (values > np.median(values)).astype(np.uint8) * 255
    Image.fromarray(valid).save(tmp_path / "m.png", exif=exif)
    tifffile.imwrite(tmp_path / "m.tif", valid, extratags=tags)
    for name in ("m.png", "m.tif"):
        np.testing.assert_array_equal(read_mask(tmp_path / name, wanted.shape), UPRIGHT[orientation](valid) > 0)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_in_tiff_are_turned_whatever_their_mode(tmp_path, orientation):
    random = np.random.default_rng(1).integers(0, 256, (24, 40, 4), dtype=np.uint8)
    random[..., 3] = 255
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "l.tif", random[..., 0], extratags=tags)
    tifffile.imwrite(tmp_path / "c.tif", random[..., :3], photometric="rgb", extratags=tags)
    tifffile.imwrite(tmp_path / "a.tif", random, photometric="rgb", extrasamples=["unassalpha"], extratags=tags)
    colors = UPRIGHT[orientation](random[..., :3])
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "c.tif").image), colors)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "a.tif").image), colors)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "l.tif").image)[..., 0], colors[..., 0])


def test_16_bits_of_color_are_not_taken_for_8_of_gray(tmp_path):
    for name in ("d.tif", "d.png"):
        cv2.imwrite(str(tmp_path / name), np.repeat(MILLIMETERS[..., None], 3, -1))
        with pytest.raises(ValueError, match=rf"{name} is a 16-bit (TIFF|PNG) with colors, of which only 8 bits"):
            read_depth(tmp_path / name)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint64])
def test_a_tiff_that_pillow_does_not_read_is_named_with_what_to_do(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "d.tif", MILLIMETERS.astype(dtype))
    with pytest.raises(ValueError, match=r"is a TIFF picture of a kind that Pillow does not read.*32-bit floats\.$"):
        read_depth(tmp_path / "d.tif")


def test_further_pages_are_said(tmp_path):
    tifffile.imwrite(tmp_path / "d.tif", np.stack([METERS, METERS + 100]), photometric="minisblack")
    read = read_depth(tmp_path / "d.tif")
    np.testing.assert_array_equal(read.depth, METERS)
    assert read.notes == ("d.tif has 2 frames; only the first is used.",)


@pytest.mark.parametrize("name", ["disparity", "disp", "inv_depth", "inverse_depth", "InverseDepth"])
def test_an_array_called_disparity_is_disparity(tmp_path, name):
    np.savez(tmp_path / "d.npz", **{name: 1 / METERS, "camera": np.eye(3)})
    np.testing.assert_allclose(read_depth(tmp_path / "d.npz").depth, METERS, rtol=1e-6)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" "])
@pytest.mark.parametrize("order", "<>")
def test_every_end_of_a_line_of_pfm(tmp_path, end, order):
    scale = b"-1.0" if order == "<" else b"1.0"
    rows = METERS[::-1].astype(f"{order}f4").tobytes()
    (tmp_path / "d.pfm").write_bytes(end.join([b"Pf", b"40 24", scale, rows]))
    np.testing.assert_array_equal(read_depth(tmp_path / "d.pfm").depth, METERS)
