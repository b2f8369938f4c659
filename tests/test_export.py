"""`mforce export`: every file is opened by another library and compared with the depth that went in."""

import json
import math
import shutil

import numpy as np
import OpenEXR
import pytest
import trimesh
from PIL import Image
from plyfile import PlyData
from pygltflib import GLTF2

pytest.importorskip("typer")

from typer.testing import CliRunner

from mforce.cli.app import app

HEIGHT, WIDTH, FOV = 24, 32, 50.0


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A result's folder: a slanted wall with a hole, in colors that tell pixels apart."""
    folder = tmp_path_factory.mktemp("result")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    depth = 1.0 / (0.33 - 0.002 * rows - 0.001 * columns)
    depth[2:5, 3:6] = np.nan
    np.save(folder / "depth.npy", depth)
    colors = np.stack([rows * 10, columns * 7, np.full_like(rows, 90)], -1).astype(np.uint8)
    Image.fromarray(colors).save(folder / "rgb.png")
    (folder / "metadata.json").write_text(json.dumps({"settings": {"fov": FOV}}))
    return folder, depth, colors


def run(*arguments):
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    return done.exit_code, " ".join(done.output.split())


def points(depth):
    """The release's formula, in float64, glTF axes."""
    focal = 0.5 * WIDTH / math.tan(math.radians(FOV) / 2)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    z = depth.astype(np.float64)
    return np.stack([(x - WIDTH / 2) / focal * z, -(y - HEIGHT / 2) / focal * z, -z], -1)


def test_clouds(result, tmp_path):
    folder, depth, colors = result
    assert run("cloud", folder, "--normals", "-o", tmp_path / "a.ply")[0] == 0
    assert run("cloud", folder, "--normals", "-o", tmp_path / "a.glb")[0] == 0
    vertices = PlyData.read(tmp_path / "a.ply")["vertex"]
    known = np.isfinite(depth)
    edge = ~known
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            edge |= ~np.pad(known, 1, constant_values=True)[1 + down :, 1 + right :][:HEIGHT, :WIDTH]
    wanted = points(depth)[~edge]
    found = np.stack([vertices[name] for name in "xyz"], 1)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_array_equal(np.stack([vertices[name] for name in ("red", "green", "blue")], 1), colors[~edge])
    # Two sides of the wall at every point span a plane that its normal is upright on.
    normals = np.stack([vertices[name] for name in ("nx", "ny", "nz")], 1)
    across = points(depth)[10, 20] - points(depth)[10, 10], points(depth)[20, 10] - points(depth)[10, 10]
    upright = np.cross(*across)
    assert np.abs(normals @ (upright / np.linalg.norm(upright))).min() > 0.9999
    loaded = trimesh.load(tmp_path / "a.glb").geometry
    (scene,) = loaded.values()
    np.testing.assert_allclose(scene.vertices, wanted, atol=1e-6)
    read = GLTF2().load(str(tmp_path / "a.glb"))
    assert read.accessors[0].count == len(wanted)
    accessor = read.accessors[read.meshes[0].primitives[0].attributes.NORMAL]
    view = read.bufferViews[accessor.bufferView]
    stored = np.frombuffer(read.binary_blob(), "<f4", 3 * accessor.count, view.byteOffset)
    np.testing.assert_array_equal(stored.reshape(-1, 3), normals)


def test_normals_of_a_small_map_of_a_steep_wall_are_upright_up_to_its_border(tmp_path):
    columns = np.mgrid[:HEIGHT, :WIDTH][1]
    depth = (1.0 / (0.33 - 0.008 * columns)).astype(np.float32)  # 10% from pixel to pixel at the far end
    np.save(tmp_path / "wall.npy", depth)
    assert run("cloud", tmp_path / "wall.npy", "--normals", "--fov", FOV, "-o", tmp_path / "w.ply")[0] == 0
    vertices = PlyData.read(tmp_path / "w.ply")["vertex"]
    assert len(vertices.data) == depth.size
    normals = np.stack([vertices[name] for name in ("nx", "ny", "nz")], 1)
    places = points(depth)
    upright = np.cross(places[10, 20] - places[10, 10], places[20, 10] - places[10, 10])
    assert np.abs(normals @ (upright / np.linalg.norm(upright))).min() > 0.9999


def test_splats_and_layers(result, tmp_path):
    folder, depth, _ = result
    assert run("splats", folder, "-o", tmp_path / "s.ply")[0] == 0
    splats = PlyData.read(tmp_path / "s.ply")["vertex"]
    flipped = np.stack([splats["x"], -splats["y"], -splats["z"]], 1)
    distance = np.linalg.norm(flipped[:, None] - points(depth)[np.isfinite(depth)][None], axis=2).min(1)
    assert distance.max() < 1e-5
    assert run("layers", folder, "-o", tmp_path / "l.exr")[0] == 0
    with OpenEXR.File(str(tmp_path / "l.exr"), separate_channels=True) as file:
        channels = {name: channel.pixels for name, channel in file.channels().items()}
    np.testing.assert_array_equal(channels["Z"], np.nan_to_num(depth))
    place = np.stack([channels[f"P.{axis}"] for axis in "XYZ"], -1)
    known = np.isfinite(depth)
    np.testing.assert_allclose(place[known], points(depth)[known], atol=1e-5)


def test_stereo_and_views(result, tmp_path):
    folder, depth, colors = result
    code, said = run("stereo", folder, "--left-is-picture", "-o", tmp_path / "st.png")
    assert code == 0, said
    both = np.asarray(Image.open(tmp_path / "st.png")).astype(int)
    assert both.shape == (HEIGHT, 2 * WIDTH, 3)
    known = np.isfinite(np.load(folder / "depth.npy"))
    assert np.abs(both[:, :WIDTH] - colors)[known].max() <= 1
    code, said = run("views", folder, "--path", "dolly", "--frames", 3, "-o", tmp_path / "v")
    assert code == 0, said
    frames = sorted(path.name for path in (tmp_path / "v").glob("*.png"))
    assert frames == ["view.0001.png", "view.0002.png", "view.0003.png"]
    assert np.abs(np.asarray(Image.open(tmp_path / "v" / frames[0])).astype(int) - colors)[known].max() <= 1
    path = json.loads((tmp_path / "v" / "transforms.json").read_text())["frames"]
    assert [frame["file_path"] for frame in path] == frames
    # The dolly goes a tenth and more of the way to the wall, straight on.
    assert path[1]["transform_matrix"][2][3] == pytest.approx(-0.75 * 0.12 * np.nanmedian(depth), rel=1e-3)
    assert len((tmp_path / "v" / "camera.chan").read_text().splitlines()) == 3
    assert run("views", folder, "--frames", 1, "-o", tmp_path / "v")[0] == 2
    assert run("views", folder, "--frames", 1, "--overwrite", "-o", tmp_path / "v")[0] == 0


def test_depth_files_and_what_is_wrong(result, tmp_path):
    folder, depth, colors = result
    Image.fromarray(colors).resize((2 * WIDTH, 2 * HEIGHT)).save(tmp_path / "large.png")
    depth_file, several = tmp_path / "near.npy", tmp_path / "several"
    for name in ("001", "000"):
        shutil.copytree(folder, several / name)
    np.save(depth_file, 1 / depth)
    code, said = run("cloud", tmp_path / "near.npy", "--disparity", "--image", tmp_path / "large.png", "--fov", FOV,
                     "-o", tmp_path / "d.ply")  # fmt: skip
    assert code == 0
    assert "resized to the depth" in said
    vertices = PlyData.read(tmp_path / "d.ply")["vertex"]
    assert np.abs(vertices["z"].min() + np.nanmax(depth)) < 1e-4
    for arguments, message in (
        (("cloud", tmp_path), "is not a result of mforce"),
        (("cloud", several), f"holds 2 results: give one of them, as in {several / '000'}."),
        (("cloud", folder, "-o", "x.obj"), "must end in .ply or .glb"),
        (("layers", folder, "-o", "x.png"), "must end in .exr"),
        (("stereo", folder, "--layout", "round"), "--layout is one of"),
        (("stereo", folder, "-o", tmp_path / "x.exr"), "x.exr must end in .png or .jpg"),
        (("cloud", folder, "-o", tmp_path / "none" / "x.ply"), "none does not exist: make it first, or name another"),
        (("cloud", folder, "--fov", 0, "-o", tmp_path / "x.ply"), "--fov must be between 0 and 180 degrees, got 0"),
        (("splats", depth_file, "--fov", 180, "-o", tmp_path / "x.ply"), "--fov must be between 0 and 180 degrees"),
        (("views", folder, "--path", "zigzag", "-o", tmp_path / "z"), "there is no camera path"),
    ):
        code, said = run(*arguments)
        assert code == 2
        assert message in said
    assert not (tmp_path / "z").exists()


def test_disparity_that_was_stretched_is_as_deep_as_is_said(tmp_path):
    shades = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)
    Image.fromarray(shades).save(tmp_path / "near.png")
    for ratio in (4, 20):
        cloud = tmp_path / f"{ratio}.ply"
        assert run("cloud", tmp_path / "near.png", "--disparity", "--far-to-near", ratio, "-o", cloud)[0] == 0
        z = PlyData.read(cloud)["vertex"]["z"]
        assert z.min() / z.max() == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize(
    ("command", "ending"), [("cloud", "ply"), ("splats", "ply"), ("layers", "exr"), ("stereo", "png")]
)
def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(result, tmp_path, command, ending):
    file = tmp_path / f"kept.{ending}"
    file.write_bytes(b"mine")
    code, said = run(command, result[0], "-o", file)
    assert code == 2
    assert "exists already: name another with --output, or add --overwrite" in said
    assert file.read_bytes() == b"mine"
    assert run(command, result[0], "--overwrite", "-o", file)[0] == 0
    assert file.stat().st_size > 100
    assert run(command, result[0], "--overwrite", "-o", tmp_path)[0] == 2
