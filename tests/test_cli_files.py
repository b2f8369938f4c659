"""Reading pictures, drawing the sheet's tiles, and the all-or-nothing output folder."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("typer")

from mforce.cli.commands.values import parse_size
from mforce.mforce_core.depth.preview import depth_preview
from mforce.mforce_core.picture.reading import read_picture
from mforce.mforce_core.results.cloud_view import draw_cloud
from mforce.mforce_core.results.folder import default_output, output_folder
from mforce.mforce_core.settings import Settings


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


def test_16_bit_gray_keeps_its_tones(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "p.png")
    gray = np.asarray(read_picture(tmp_path / "p.png").image)[0, :, 0]
    assert gray.tolist() == [0, 128, 255]


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
    preview = depth_preview(torch.tensor([[[1.0, 10.0, torch.nan]]]))[0].astype(int)
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
    with pytest.raises(ValueError, match="already holds files"), output_folder(path):
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


def test_default_names_count_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_output("joint") == Path("mforce_out/joint-001")
    Path("mforce_out/joint-001").mkdir(parents=True)
    assert default_output("joint") == Path("mforce_out/joint-002")


def test_settings_survive_json():
    chosen = Settings("joint", "a ball", size=(64, 32), tilt=5.0, seed=9)
    assert Settings.from_dict(chosen.to_dict()) == chosen
    with pytest.raises(ValueError, match="color"):
        Settings.from_dict({**chosen.to_dict(), "color": 1})
    with pytest.raises(ValueError, match="incomplete"):
        Settings.from_dict({"seed": 1})


def test_sizes_are_width_by_height():
    assert parse_size("512x384") == (512, 384)
    assert parse_size("256") == (256, 256)
    assert parse_size(None) is None
