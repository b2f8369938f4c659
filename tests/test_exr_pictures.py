"""Plates and renders in OpenEXR as pictures, written by the library itself."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("OpenEXR")

import OpenEXR

from mforce.cli.picture_list import find_pictures
from mforce.mforce_core.picture.reading import read_picture

#: Linear light and its level in sRGB, among them the gray card of 18%.
KNOWN = {0.0: 0, 0.18: 118, 0.5: 188, 1.0: 255, 3.0: 255, -0.1: 0}
#: ACES 2065-1 and ACEScg.
AP0 = (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767)
AP1 = (0.713, 0.293, 0.165, 0.830, 0.128, 0.044, 0.32168, 0.33767)


def write(path, channels, **header):
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}
    OpenEXR.File(header, {name: np.ascontiguousarray(pixels) for name, pixels in channels.items()}).write(str(path))
    return path


def levels(path):
    picture = read_picture(path)
    return np.asarray(picture.image).astype(int), picture.notes


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_linear_light_is_coded_as_srgb(tmp_path, kind):
    light = np.zeros((4, len(KNOWN), 3), kind)
    light[:] = np.array(list(KNOWN))[None, :, None]
    found, notes = levels(write(tmp_path / "plate.exr", {"RGB": light}))
    assert np.abs(found[0, :, 1] - list(KNOWN.values())).max() <= 1
    assert notes == (
        "plate.exr holds linear light; it was coded as sRGB.",
        "plate.exr is brighter than white in 17% of its pixels, which are white now.",
    )


def test_what_is_no_number_is_black(tmp_path):
    light = np.full((2, 2, 3), np.nan, np.float32)
    light[0, 0] = np.inf
    found, _ = levels(write(tmp_path / "a.exr", {"RGB": light}))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[1:].max() == 0


@pytest.mark.parametrize(
    ("chromaticities", "to_bt709"),
    [
        # As Academy's transforms have them (Bradford's adaptation from ACES white to daylight).
        (AP0, [[2.52169, -1.13413, -0.38756], [-0.27648, 1.37272, -0.09624], [-0.01538, -0.15298, 1.16835]]),
        (AP1, [[1.70505, -0.62179, -0.08326], [-0.13026, 1.14080, -0.01055], [-0.02400, -0.12897, 1.15297]]),
    ],
)
def test_colors_of_aces_become_those_of_a_screen(tmp_path, chromaticities, to_bt709):
    light = np.random.default_rng(0).uniform(0.2, 0.6, (8, 8, 3)).astype(np.float32)
    found, _ = levels(write(tmp_path / "a.exr", {"RGB": light}, chromaticities=chromaticities))
    wanted = light @ np.array(to_bt709).T
    coded = np.where(wanted <= 0.0031308, 12.92 * wanted, 1.055 * wanted.clip(0) ** (1 / 2.4) - 0.055)
    assert np.abs(found - coded.clip(0, 1) * 255).max() <= 1
    white, _ = levels(write(tmp_path / "w.exr", {"RGB": np.ones((2, 2, 3), np.float32)}, chromaticities=chromaticities))
    assert white.min() >= 254


@pytest.mark.parametrize("chromaticities", [(0.0,) * 8, (0.3,) * 8])
def test_chromaticities_that_make_no_colors_are_left_alone(tmp_path, chromaticities):
    light = np.full((2, 2, 3), 0.18, np.float32)
    assert levels(write(tmp_path / "a.exr", {"RGB": light}, chromaticities=chromaticities))[0].max() == 118


@pytest.mark.parametrize("kind", [b"string", b"nobody"])
def test_an_attribute_of_that_name_may_hold_anything(tmp_path, kind):
    path = write(tmp_path / "a.exr", {"RGB": np.full((2, 2, 3), 0.18, np.float32)}, chromaticitieX="ACEScg")
    old, new = b"chromaticitieX\0string", b"chromaticities\0" + kind
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    assert levels(path)[0].max() == 118


def test_transparency_lies_on_white_in_linear_light(tmp_path):
    half = np.full((2, 2, 4), 0.5, np.float32)  # white times an alpha of a half
    half[0, 0] = 0, 0, 0, 0.82
    found, notes = levels(write(tmp_path / "a.exr", {"RGBA": half}))
    assert found[1, 1].tolist() == [255, 255, 255]
    assert found[0, 0].tolist() == [118, 118, 118]
    assert "a.exr has transparent pixels; they were put on white." in notes


def test_the_picture_is_taken_from_the_layer_that_is_one(tmp_path):
    def layer(name, value):
        return {f"{name}{component}": np.full((2, 2), value, np.float32) for component in "RGB"}

    depth = {"Z": np.full((2, 2), 7.0, np.float32)}
    render = layer("ViewLayer.Combined.", 0.18) | layer("ViewLayer.Albedo.", 0.9) | depth
    found, notes = levels(write(tmp_path / "a.exr", render))
    assert found.max() == found.min() == 118
    assert "not from ViewLayer.Albedo" in notes[1]
    assert levels(write(tmp_path / "b.exr", layer("", 0.18) | layer("beauty.", 0.9)))[0].max() == 118


def test_a_region_lies_in_its_whole_picture(tmp_path):
    window = np.array([2, 1], np.int32), np.array([3, 2], np.int32)
    whole = np.array([0, 0], np.int32), np.array([5, 4], np.int32)
    light = {"RGB": np.full((2, 2, 3), 0.18, np.float32)}
    found, _ = levels(write(tmp_path / "a.exr", light, dataWindow=window, displayWindow=whole))
    assert found.shape == (5, 6, 3)
    assert found[1:3, 2:4].min() == 118
    assert found.sum() == 4 * 3 * 118


def test_a_folder_of_plates_is_one_of_pictures_where_it_has_no_others(tmp_path):
    for name in ("b.0002.exr", "b.0001.exr"):
        write(tmp_path / name, {"RGB": np.ones((2, 2, 3), np.float32)})
    assert list(find_pictures([str(tmp_path)])) == ["b.0001", "b.0002"]
    Image.new("RGB", (2, 2)).save(tmp_path / "photo.png")
    assert list(find_pictures([str(tmp_path)])) == ["photo"]


def test_a_depth_map_is_no_picture_and_damage_is_said(tmp_path):
    path = write(tmp_path / "z.exr", {"Z": np.ones((4, 4), np.float32)})
    with pytest.raises(ValueError, match=r"z\.exr has the channels Z, which are no color picture"):
        read_picture(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="cut short"):
        read_picture(path)
