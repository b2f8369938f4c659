"""Pictures with a color profile, against the matrices of CSS Color 4 and scikit-image's CIELAB."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage.color import lab2xyz

from icc_profiles import (
    DISPLAY_P3,
    P3_OF_GAMMA_2,
    XYZ_TO_SRGB,
    colorants,
    curve,
    levels_of_p3,
    numbers,
    profile,
    srgb_levels,
)
from mforce.mforce_core.picture.reading import as_rgb, read_picture
from mforce.training.data.sample import decode_files


def shown(image):
    picture = as_rgb(image, "photo")
    assert picture.image.mode == "RGB"
    return np.asarray(picture.image).astype(int), picture.notes


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_colors_of_a_wide_display_become_those_of_srgb(tmp_path, suffix):
    levels = np.array([[[200, 60, 40], [30, 180, 90], [60, 90, 230], [128, 128, 128], [255, 255, 255], [9, 7, 5]]])
    levels = levels.repeat(16, 0).repeat(16, 1).astype(np.uint8)
    options = {"quality": 100} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(levels).save(tmp_path / f"p.{suffix}", icc_profile=P3_OF_GAMMA_2, **options)
    picture = read_picture(tmp_path / f"p.{suffix}")
    found, expected = np.asarray(picture.image).astype(int)[8, 8::16], levels_of_p3(levels[8, 8::16])
    assert np.abs(found - expected).max() <= (3 if suffix == "jpg" else 1)
    assert np.abs(expected - levels[8, 8::16]).max() > 20  # else it would tell nothing
    assert picture.notes == (
        f"p.{suffix} has the colors of the profile 'A wide display'; they were converted to sRGB.",
    )
    assert "icc_profile" not in picture.image.info  # it would be written into what is made of the picture


def test_transparency_and_palettes_stay(tmp_path):
    clear = Image.new("RGBA", (2, 1), (200, 60, 40, 255))
    clear.putpixel((1, 0), (200, 60, 40, 0))
    clear.info["icc_profile"] = P3_OF_GAMMA_2
    found, notes = shown(clear)
    assert np.abs(found[0, 0] - levels_of_p3(np.array([200, 60, 40]))).max() <= 1
    assert found[0, 1].tolist() == [255, 255, 255]
    assert ["profile" in note for note in notes] == [True, False]
    palette = Image.new("RGB", (2, 1), (200, 60, 40)).quantize(2)
    palette.info["icc_profile"] = P3_OF_GAMMA_2
    assert np.abs(shown(palette)[0] - levels_of_p3(np.array([200, 60, 40]))).max() <= 1


def test_gray_has_the_steps_of_its_profile():
    gray = Image.fromarray(np.array([[0, 20, 100, 200, 255]], np.uint8))
    gray.info["icc_profile"] = profile("GRAY", "XYZ", "Gray of gamma 1", kTRC=curve(1.0))
    for image in (gray, gray.convert("LA")):
        found = shown(image)[0]
        assert np.abs(found[0] - srgb_levels(np.array([0, 20, 100, 200, 255]) / 255)[:, None]).max() <= 1


def test_colors_of_print():
    """A printing press whose cyan is one color and whose other inks are black."""
    ink = (60.0, -30.0, -30.0)
    grid = np.zeros((16, 3), np.uint8)  # the last ink counts fastest
    grid[0], grid[8] = (255, 128, 128), (round(ink[0] * 2.55), ink[1] + 128, ink[2] + 128)
    grid[grid.any(1) == 0] = (0, 128, 128)
    identity = np.arange(256, dtype=np.uint8).tobytes()
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + numbers(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += identity * 4 + grid.tobytes() + identity * 3
    image = Image.fromarray(np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8), "CMYK")
    image.info["icc_profile"] = profile("CMYK", "Lab", "A press", A2B0=table, A2B1=table)
    white, cyan, black = shown(image)[0][0]
    d50_to_d65 = np.array(  # Bradford's, as in CSS Color 4
        [
            [0.955473421488075, -0.02309845494876471, 0.06325924320057072],
            [-0.0283697093338637, 1.0099953980813041, 0.021041441191917323],
            [0.012314014864481998, -0.020507649298898964, 1.330365926242124],
        ]
    )
    expected = srgb_levels(XYZ_TO_SRGB @ d50_to_d65 @ lab2xyz(np.array(ink), illuminant="D50"))
    assert np.abs(cyan - expected).max() <= 2
    assert np.abs(np.asarray(Image.new("CMYK", (1, 1), (255, 0, 0, 0)).convert("RGB"))[0, 0] - expected).max() > 30
    assert (white.min(), black.max()) == (255, 0)


def test_srgb_of_any_program_is_left_as_it_is():
    levels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    image = Image.fromarray(levels)
    # This one has its primaries from CSS Color 4, and a curve that differs from sRGB's by its rounding.
    adapted = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
    coded = np.arange(256) / 255
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    steps = b"curv\0\0\0\0" + struct.pack(">I256H", 256, *(light * 65535).round().astype(int))
    other = profile("RGB", "XYZ", "Another sRGB", **(colorants(adapted, 1.0) | {f"{c}TRC": steps for c in "rgb"}))
    for content in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), other):
        image.info["icc_profile"] = content
        found, notes = shown(image)
        assert (found == levels).all()
        assert notes == ()


@pytest.mark.parametrize("content", [b"x" * 200, P3_OF_GAMMA_2[:300], b"\0" * 128])
def test_a_damaged_profile_costs_no_picture(content):
    image = Image.new("RGB", (2, 2), (200, 60, 40))
    image.info["icc_profile"] = content
    found, notes = shown(image)
    assert (found == (200, 60, 40)).all()
    assert "photo has a color profile that cannot be used" in notes[0]
    assert len(notes[0]) < 200


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 500, f"of the profile '{'x' * 60}'"),
        ("a\nb", "of the profile 'ab'"),
        ("\xe9\xff", "of a profile without a"),
    ],
)
def test_a_profile_may_have_any_name(name, said):
    image = Image.new("RGB", (2, 2), (200, 60, 40))
    content = profile("RGB", "XYZ", "?" * len(name), **colorants(DISPLAY_P3, 2.0))
    image.info["icc_profile"] = content.replace(b"?" * len(name), name.encode("latin-1"))
    assert said in shown(image)[1][0]


def test_a_profile_of_other_colors_is_not_used():
    image = Image.new("RGB", (2, 2), (200, 60, 40))
    image.info["icc_profile"] = profile("GRAY", "XYZ", "Gray", kTRC=curve(1.0))
    assert (shown(image)[0] == (200, 60, 40)).all()


def test_training_reads_the_same_colors(tmp_path):
    levels = np.full((4, 4, 3), (200, 60, 40), np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png", icc_profile=P3_OF_GAMMA_2)
    sample = decode_files("a", {"png": (tmp_path / "a.png").read_bytes()})
    assert (sample.image == np.asarray(read_picture(tmp_path / "a.png").image)).all()
    assert "A wide display" in sample.notes[0]
