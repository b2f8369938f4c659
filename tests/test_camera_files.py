"""Camera paths as files, read by USD's own library and by the definitions of the other formats."""

import json
import math

import numpy as np
import pytest
import torch

from mforce.mforce_core.scene3d.camera_files import CameraPath, write_chan, write_json, write_usd
from mforce.mforce_core.scene3d.camera_path import Move
from mforce.mforce_core.scene3d.point_cloud import intrinsics_from_fov
from mforce.mforce_core.scene3d.poses import extrinsics_of

SIZE = (48, 64)
POINTS = np.array([[0.3, 0.2, 4.0], [-1.0, 0.5, 6.0], [0.0, -0.4, 3.0]])  # in the picture's camera, OpenCV


@pytest.fixture(scope="module")
def cameras():
    moves = [Move(), Move(orbit_right=20, orbit_up=-10, forward=0.2, roll=15), Move(yaw=-30, pitch=12, right=0.3)]
    poses = [move.pose(torch.tensor([0.0, 0.0, 4.0])) for move in moves]
    lenses = torch.stack([intrinsics_from_fov(*SIZE, fov) for fov in (65.0, 40.0, 40.0)])
    lenses[2, 0, 2] += 0.1
    lenses[2, 1, 2] -= 0.05
    lenses[2, 1, 1] *= 1.1  # Depth Anything 3 estimates both focal lengths
    return CameraPath(lenses, torch.stack([extrinsics_of(pose) for pose in poses]), SIZE)


def places(cameras, frame):
    """Pixels (x, y) of the points in a frame, by OpenCV's own formula."""
    seen = np.c_[POINTS, np.ones(3)] @ cameras.extrinsics[frame].double().numpy().T
    lens = cameras.lenses[frame].double().numpy()
    return np.stack(
        [
            (lens[0, 0] * seen[:, 0] / seen[:, 2] + lens[0, 2]) * SIZE[1],
            (lens[1, 1] * seen[:, 1] / seen[:, 2] + lens[1, 2]) * SIZE[0],
        ],
        1,
    )


WORLD = POINTS * [1, -1, -1]  # y up, looking along -z


def turn(axis, degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def test_nukes_text(tmp_path, cameras):
    write_chan(tmp_path / "shot.chan", cameras, 1001)
    lines = [line.split() for line in (tmp_path / "shot.chan").read_text().splitlines()]
    assert [line[0] for line in lines] == ["1001", "1002", "1003"]
    for frame in (0, 1):  # .chan has no shifted lens
        tx, ty, tz, rx, ry, rz, fov = map(float, lines[frame][1:])
        # Nuke's rotation order ZXY: z is applied first, y last.
        matrix = turn("y", ry) @ turn("x", rx) @ turn("z", rz)
        local = (WORLD - [tx, ty, tz]) @ matrix
        focal = 0.5 * SIZE[0] / math.tan(math.radians(fov) / 2)
        at = np.stack(
            [SIZE[1] / 2 - focal * local[:, 0] / local[:, 2], SIZE[0] / 2 + focal * local[:, 1] / local[:, 2]], 1
        )
        np.testing.assert_allclose(at, places(cameras, frame), atol=1e-3)


def test_transforms_as_nerf_tools_read_them(tmp_path, cameras):
    write_json(tmp_path / "shot.json", cameras, 1, "view")
    found = json.loads((tmp_path / "shot.json").read_text())
    assert found["camera_model"] == "PINHOLE"
    for index, frame in enumerate(found["frames"]):
        assert frame["frame"] == index + 1
        assert frame["file_path"] == f"view.{index + 1:04}.png"
        matrix = np.array(frame["transform_matrix"])
        local = (WORLD - matrix[:3, 3]) @ matrix[:3, :3]
        at = np.stack(
            [
                frame["cx"] - frame["fl_x"] * local[:, 0] / local[:, 2],
                frame["cy"] + frame["fl_y"] * local[:, 1] / local[:, 2],
            ],
            1,
        )
        np.testing.assert_allclose(at, places(cameras, index), atol=1e-4)


@pytest.mark.parametrize("ending", ["usda", "usdc"])
def test_usd_projects_points_to_the_same_pixels(tmp_path, cameras, ending):
    pxr = pytest.importorskip("pxr", reason="usd-core is not installed")
    from pxr import Gf, Usd, UsdGeom

    assert pxr
    write_usd(tmp_path / f"shot.{ending}", cameras, 1001, 24.0)
    stage = Usd.Stage.Open(str(tmp_path / f"shot.{ending}"))
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode(), stage.GetTimeCodesPerSecond()) == (1001, 1003, 24)
    camera = UsdGeom.Camera(stage.GetDefaultPrim())
    for frame in range(3):
        frustum = camera.GetCamera(Usd.TimeCode(1001 + frame)).frustum
        project = frustum.ComputeViewMatrix() * frustum.ComputeProjectionMatrix()
        at = np.array([project.Transform(Gf.Vec3d(*point))[:2] for point in WORLD])
        pixels = np.stack([(at[:, 0] + 1) / 2 * SIZE[1], (1 - at[:, 1]) / 2 * SIZE[0]], 1)
        np.testing.assert_allclose(pixels, places(cameras, frame), atol=1e-3)
