"""Pictures of phones in HEIC, written by pillow-heif."""

import sys

import numpy as np
import pytest
from PIL import Image, features

pytest.importorskip("pillow_heif", reason="pillow-heif has no file for this machine")

import pillow_heif

from icc_profiles import P3_OF_GAMMA_2, levels_of_p3
from mforce.cli.picture_list import find_pictures
from mforce.mforce_core.picture.reading import read_picture

LEVELS = np.zeros((64, 96, 3), np.uint8)
LEVELS[:, :48] = 200, 60, 40
LEVELS[:32, 48:] = 30, 120, 220


def write(path, **options):
    pillow_heif.from_pillow(Image.fromarray(LEVELS)).save(path, quality=-1, chroma=444, **options)
    return path


def test_a_picture_comes_back_by_any_name(tmp_path):
    for name in ("a.heic", "b.HIF", "c.jpg"):
        picture = read_picture(write(tmp_path / name, format="HEIF"))
        assert np.abs(np.asarray(picture.image).astype(int) - LEVELS).max() <= 3
        assert picture.notes == ()


def test_it_is_upright(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6  # lies on its left side
    found = np.asarray(read_picture(write(tmp_path / "a.heic", exif=tags.tobytes())).image).astype(int)
    assert found.shape == (96, 64, 3)
    assert np.abs(found - np.rot90(LEVELS, -1)).max() <= 3


def test_a_color_profile_counts(tmp_path):
    picture = read_picture(write(tmp_path / "a.heic", icc_profile=P3_OF_GAMMA_2))
    assert np.abs(np.asarray(picture.image)[8, 8] - levels_of_p3(LEVELS[8, 8])).max() <= 5
    assert "A wide display" in picture.notes[0]


def test_what_is_damaged_or_too_large_is_refused(tmp_path):
    content = write(tmp_path / "a.heic").read_bytes()
    (tmp_path / "cut.heic").write_bytes(content[:-200])
    with pytest.raises(ValueError, match=r"cut\.heic cannot be decoded"):
        read_picture(tmp_path / "cut.heic")
    at = content.index(b"ispe") + 8
    for side, said in (
        (30000, "30000x30000 pixels, too many"),
        (9000, "9000x9000 pixels, more than the file can hold"),
    ):
        (tmp_path / "large.heic").write_bytes(content[:at] + side.to_bytes(4, "big") * 2 + content[at + 8 :])
        with pytest.raises(ValueError, match=said):
            read_picture(tmp_path / "large.heic")


def test_without_the_package_it_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"a\.heic: A HEIC picture needs .*pip install 'pillow-heif'"):
        read_picture(path)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_needs_no_other_package(tmp_path, monkeypatch):
    Image.fromarray(LEVELS).save(tmp_path / "a.avif")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert read_picture(tmp_path / "a.avif").image.size == (96, 64)


def test_folders_are_looked_through_for_them(tmp_path):
    write(tmp_path / "a.heic")
    write(tmp_path / "b.HIF", format="HEIF")
    assert list(find_pictures([str(tmp_path)])) == ["a", "b"]
