"""`mforce explore`: the files that it writes, read by other libraries, and its sentences."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData

pytest.importorskip("typer")
pytest.importorskip("av")

import av
from typer.testing import CliRunner

from mforce.cli.app import app
from mforce.cli.explore import Way
from mforce.mforce_core.explore.world import Camera
from mforce.mforce_core.scene3d.point_cloud import intrinsics_from_fov
from mforce.mforce_core.scene3d.poses import Pose

FEW = ("--steps", 1, "--depth-steps", 0, "--size", "64x48")
SHORT = ("--views", 2, "--frames", 3)


def run(*arguments):
    done = CliRunner().invoke(app, ["explore", *map(str, arguments)])
    return done.exit_code, " ".join(done.output.split())


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A picture of a box before a wall, and its depth."""
    folder = tmp_path_factory.mktemp("given")
    depth, color = np.full((96, 128), 4.0, np.float32), np.full((96, 128, 3), 150, np.uint8)
    depth[30:70, 50:80], color[30:70, 50:80] = 2.0, (200, 60, 20)
    np.save(folder / "depth.npy", depth)
    Image.fromarray(color).save(folder / "picture.png")
    return folder


def test_a_walk_writes_views_cameras_a_cloud_and_a_clip(given, tmp_path):
    out = tmp_path / "walk"
    code, said = run(
        given / "picture.png", "--depth", given / "depth.npy", "--fov", 60, "--route", "to the right",
        "--amplitude", 0.4, "-o", out, *FEW, *SHORT,
    )  # fmt: skip
    assert code == 0, said
    assert Image.open(out / "view.0002.png").size == (64, 48)
    depth = np.load(out / "depth.0002.npy")
    assert depth.shape == (48, 64)
    assert np.isfinite(depth).all()
    frames = json.loads((out / "transforms.json").read_text())["frames"]
    # 0.8 is 0.4 of the distance to what is in the middle; OpenGL's matrices hold the place, OpenCV's its opposite.
    assert [frame["transform_matrix"][0][3] for frame in frames] == pytest.approx([0.4, 0.8], rel=1e-3)
    assert frames[0]["fl_x"] == pytest.approx(0.5 * 64 / np.tan(np.radians(30)), rel=1e-5)
    other = json.loads((out / "cameras_opencv.json").read_text())["frames"]
    assert [frame["world_to_camera"][0][3] for frame in other] == pytest.approx([-0.4, -0.8], rel=1e-3)
    cloud = PlyData.read(out / "scene.ply")["vertex"]
    half = 4 * np.tan(np.radians(30))  # the first picture's edge on the wall
    assert cloud["x"].max() > half + 0.4
    assert cloud["z"].min() == pytest.approx(-4, rel=0.2)
    with av.open(str(out / "clip.mp4")) as clip:
        assert len(list(clip.decode(video=0))) == 3
    # The same cameras again, from the file.
    again = tmp_path / "again"
    code, said = run(
        given / "picture.png", "--depth", given / "depth.npy", "--fov", 60, "--cameras", out / "cameras_opencv.json",
        "-o", again, *FEW,
    )  # fmt: skip
    assert code == 0, said
    assert np.array_equal(np.load(again / "depth.0002.npy"), depth)


def test_both_eyes_of_a_picture_whose_depth_is_made(given, tmp_path):
    code, said = run(
        given / "picture.png", "--route", "stereo", "--layout", "over under", "-o", tmp_path / "eyes", *FEW, *SHORT
    )
    assert code == 0, said
    left, right, both = (Image.open(tmp_path / "eyes" / f"{name}.png") for name in ("left", "right", "stereo"))
    assert both.size == (64, 96)
    assert np.array_equal(np.concatenate([left, right]), np.asarray(both))
    assert not np.array_equal(left, right)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--route", "moonwalk"), "--route is one of: walk in"),
        (("--route", "stereo", "--layout", "round"), "--layout is one of: side by side"),
        (("--layout", "over under"), "--layout is for --route stereo: leave it out."),
        (("--cameras", "c.json", "--amplitude", 1), "--amplitude does nothing beside --cameras"),
        (("--cameras", "c.json", "--frames", 9), "--frames does nothing beside --cameras"),
        (("--amplitude", 5), "camera 1 sees only 0% of its view filled: it stands inside a wall"),
    ],
)
def test_mistakes_are_named_and_nothing_is_left(given, tmp_path, arguments, sentence):
    short = () if "--cameras" in arguments else SHORT
    code, said = run(
        given / "picture.png", "--depth", given / "depth.npy", "-o", tmp_path / "none", *FEW, *short, *arguments
    )  # fmt: skip
    assert code == 2
    assert sentence in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["picture", "depth", "cameras"])
def test_files_that_are_not_there_are_named_before_a_model_is_loaded(given, tmp_path, monkeypatch, missing):
    monkeypatch.setattr("mforce.cli.explore.load_pipeline", lambda *_: pytest.fail("a model was loaded"))
    gone = tmp_path / "gone"
    files = {"picture": given / "picture.png", "depth": given / "depth.npy"} | {missing: gone}
    options = [part for name in ("depth", "cameras") if name in files for part in (f"--{name}", files[name])]
    assert run(files["picture"], *options, "-o", tmp_path / "none") == (2, f"Error: {gone} does not exist.")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("no cameras", "ways.json: the cameras are not readable JSON."),
        ('{"frames": []}', "ways.json: the cameras' JSON has no frames"),
        (json.dumps({"k1": 0.2, "frames": [{"transform_matrix": np.eye(4).tolist()}]}), "ways.json: camera 1 bends"),
    ],
)
def test_cameras_that_cannot_be_used_are_named_before_a_model_is_loaded(
    given, tmp_path, monkeypatch, content, sentence
):
    monkeypatch.setattr("mforce.cli.explore.load_pipeline", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "ways.json").write_text(content)
    code, said = run(given / "picture.png", "--cameras", tmp_path / "ways.json", "-o", tmp_path / "none")
    assert code == 2
    assert sentence in said
    assert not (tmp_path / "none").exists()


def test_a_field_of_view_of_zero_is_no_default(given, tmp_path):
    assert run(given / "picture.png", "--fov", 0, "-o", tmp_path / "none")[0] == 2


def test_a_way_is_measured_by_the_depth_in_the_middle_of_the_picture():
    depth = torch.full((40, 60), 10.0)
    depth[16:24, 24:36] = 2.0
    own = Camera(Pose(torch.eye(3), torch.zeros(3)), intrinsics_from_fov(40, 60))
    (last,) = Way("to the right", 0.5, 1, 2, "side by side").places(1, own, depth)
    torch.testing.assert_close(last.pose.position, torch.tensor([1.0, 0.0, 0.0]))
