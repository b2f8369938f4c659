"""Cameras of 3D viewers against a ray tracer that stands where they do, and against what three.js does to a cloud."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from mforce.mforce_core.scene3d.point_cloud import PointCloud, intrinsics_from_fov, merge, unproject
from mforce.mforce_core.scene3d.point_cloud_files import read_ply, to_ply
from mforce.mforce_core.scene3d.poses import Pose, extrinsics_of, moved
from mforce.mforce_core.scene3d.render_view import render_view
from mforce.mforce_core.scene3d.side_by_side import in_order
from mforce.mforce_core.scene3d.viewer import AS_IT_IS, between, cloud_stage, shot_of
from test_render_view import CAMERA, SIZE, STILL, surface_of, trace


def xyz(values):
    return dict(zip("xyz", map(float, values), strict=True))


def quaternion(rotation):
    return dict(zip("xyzw", rotation.as_quat().tolist(), strict=True))


OWN_FOV = math.degrees(2 * math.atan(0.5 / float(CAMERA[1, 1])))
# Where the picture's own camera stands in the viewer of a mesh: at 0, looking along -z.
OWN = {"position": xyz([0, 0, 0]), "target": xyz([0, 0, -3]), "fov": OWN_FOV, "zoom": 1, "cameraType": "perspective"}


def test_the_pictures_own_camera_shows_the_picture():
    shot = shot_of(OWN, AS_IT_IS)
    torch.testing.assert_close(shot.pose.rotation, torch.eye(3))
    torch.testing.assert_close(shot.lens(SIZE, SIZE), CAMERA)
    assert shot.distance == pytest.approx(3)


@pytest.mark.parametrize("stage", ["cloud", "scene"])
@pytest.mark.parametrize("says", ["quaternion", "target"])
def test_a_view_is_what_a_ray_tracer_sees_from_the_viewers_camera(stage, says):
    color, depth, _ = trace(STILL)
    cloud = unproject(depth, intrinsics=CAMERA, edge_threshold=None, max_points=None)
    # three.js moves the cloud that the file holds, whose median is at 0, and scales it.
    centered = cloud.centered()
    low, high = centered.points.amin(0), centered.points.amax(0)
    middle = (low + high) / 2
    radius = (centered.points - middle).norm(dim=1).max()
    eye, target = torch.tensor([0.35, 0.2, 0.25]), torch.tensor([-0.2, -0.1, -3.0])
    back = torch.nn.functional.normalize(eye - target, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), back), dim=0)
    axes = torch.stack([right, torch.linalg.cross(back, right), back], 1)
    camera = {"fov": 48.0, "zoom": 1.1, "cameraType": "perspective"}
    if stage == "cloud":
        median = cloud.points.median(0).values
        places = [((place - median) - middle) / radius for place in (eye, target)]
        seen = cloud_stage(read_ply(to_ply(centered)).points)
        offset = torch.tensor(read_ply(to_ply(centered)).offset)
        seen = type(seen)(seen.center + offset, seen.radius)
    else:
        places, seen = [eye, target], AS_IT_IS
    camera |= {"position": xyz(places[0]), "target": xyz(places[1])}
    if says == "quaternion":
        camera["quaternion"] = quaternion(Rotation.from_matrix(axes.numpy()))
    shot = shot_of(camera, seen)
    assert shot.distance == pytest.approx(float((eye - target).norm()), rel=1e-4)

    lens = shot.lens(SIZE, SIZE)
    assert float(lens[1, 1]) == pytest.approx(1.1 * 0.5 / math.tan(math.radians(24)))
    flip = torch.tensor([1.0, -1.0, -1.0])
    wanted, wanted_depth, _ = trace(Pose(flip[:, None] * axes * flip, flip * eye), camera=lens)
    view = render_view(surface_of(depth), color, CAMERA, shot.pose, lens=lens)
    seen = view.coverage >= 1
    assert seen.float().mean() > 0.7
    assert (view.color - wanted)[seen].abs().median() < 0.01
    assert (view.depth / wanted_depth - 1)[seen].abs().median() < 0.005


def test_roll_comes_with_the_quaternion():
    turned = Rotation.from_euler("z", 30, degrees=True)
    shot = shot_of({"position": xyz([0, 0, 0]), "quaternion": quaternion(turned)}, AS_IT_IS)
    # Counterclockwise from behind the camera in y up is counterclockwise in y down too.
    half = math.sqrt(3) / 2
    torch.testing.assert_close(shot.pose.rotation, torch.tensor([[half, 0.5, 0], [-0.5, half, 0], [0, 0, 1]]))
    assert shot.focal == pytest.approx(0.5 / math.tan(math.radians(17.5)))


@pytest.mark.parametrize(
    ("camera", "said"),
    [
        ({**OWN, "cameraType": "orthographic"}, "orthographic"),
        ({"target": xyz([0, 0, 0])}, "no position"),
        ({"position": xyz([0, 0, 0]), "target": xyz([0, 0, 0])}, "where it looks"),
        ({**OWN, "position": {"x": 1}}, "position is not x, y, z"),
        ({**OWN, "position": xyz([math.inf, 0, 0])}, "not finite"),
        ({**OWN, "fov": 180}, "field of view"),
        ({**OWN, "zoom": "wide"}, "not numbers"),
        ({**OWN, "zoom": math.inf}, "a zoom of inf"),
    ],
)
def test_a_camera_that_cannot_be_used_is_said(camera, said):
    with pytest.raises(ValueError, match=said):
        shot_of(camera, AS_IT_IS)


@pytest.mark.parametrize("degrees", [0.0, 25.0, 179.9999, 180.0])
def test_a_move_between_two_shots_turns_evenly(degrees):
    start = Rotation.from_rotvec([0.1, 0.2, 0.3])
    second = Rotation.from_rotvec(math.radians(degrees) * np.array([0.6, 0.0, 0.8])) * start
    cameras = [
        {"position": xyz(place), "target": xyz([0, 0, -5]), "quaternion": quaternion(turn), "fov": fov}
        for place, turn, fov in (([0, 0, 0], start, 30), ([2, 0, 0], second, 60))
    ]
    first, last = (shot_of(camera, AS_IT_IS) for camera in cameras)
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0])).numpy()
    slerp = Slerp([0, 1], Rotation.concatenate([start, second]))
    for share in (0.0, 0.3, 1.0):
        shot = between(first, last, share)
        torch.testing.assert_close(shot.pose.position, torch.tensor([2 * share, 0.0, 0.0]))
        if degrees < 179:  # half a turn may go either way
            wanted = torch.tensor(flip @ slerp(share).as_matrix() @ flip).float()
            torch.testing.assert_close(shot.pose.rotation, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(between(first, last, 0.0).pose.rotation, first.pose.rotation)
    torch.testing.assert_close(between(first, last, 1.0).pose.rotation, last.pose.rotation, atol=1e-4, rtol=0)
    assert between(first, last, 0.5).focal == pytest.approx(math.sqrt(first.focal * last.focal))


def test_extrinsics_take_the_camera_to_zero_and_moves_add_up():
    turn = torch.tensor(Rotation.from_rotvec([0.3, -0.2, 0.1]).as_matrix()).float()
    base, step = Pose(turn, torch.tensor([1.0, 2.0, 3.0])), Pose(turn.T, torch.tensor([0.0, 0.0, 0.5]))
    there = moved(base, step)
    torch.testing.assert_close(there.rotation, torch.eye(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(there.position, base.position + turn @ step.position)
    matrix = extrinsics_of(base)
    torch.testing.assert_close(matrix @ torch.cat([base.position, torch.ones(1)]), torch.tensor([0.0, 0, 0, 1]))
    ahead = base.position + turn @ torch.tensor([0.0, 0.0, 2.0])
    torch.testing.assert_close(
        matrix @ torch.cat([ahead, torch.ones(1)]), torch.tensor([0.0, 0, 2, 1]), atol=1e-6, rtol=0
    )


def test_centering_is_remembered_in_files_and_clouds():
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([1.0, 2.0, -5.0])
    cloud = PointCloud(points, None, None).centered()
    back = read_ply(to_ply(cloud))
    torch.testing.assert_close(back.points + torch.tensor(back.offset), points)
    assert read_ply(to_ply(PointCloud(points, None, None))).offset == (0, 0, 0)
    torch.testing.assert_close(back.centered().points + torch.tensor(back.centered().offset), points)
    assert merge([back, back]).offset == back.offset
    assert merge([back, PointCloud(points, None, None)]).offset == (0, 0, 0)
    assert back.select(torch.arange(3)).offset == back.offset


def test_frames_that_are_made_side_by_side_come_in_order(monkeypatch):
    import threading

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    started, gate = [], threading.Barrier(3, timeout=20)

    def make(item):
        started.append(item)
        if item < 3:
            gate.wait()  # three at once, or this fails
        return item * item

    assert list(in_order(make, range(8), torch.device("cpu"))) == [item * item for item in range(8)]
    started.clear()
    results = in_order(lambda item: started.append(item), range(100), torch.device("cpu"))
    next(results)
    results.close()
    assert len(started) < 10
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda item: 1 / item, [1, 0, 2], torch.device("cpu")))


def test_a_lens_of_its_own_zooms_the_view():
    color, depth, _ = trace(STILL)
    lens = intrinsics_from_fov(SIZE, SIZE, 30.0)
    wanted, _, _ = trace(STILL, camera=lens)
    view = render_view(surface_of(depth), color, CAMERA, STILL, lens=lens)
    assert (view.coverage == 1).float().mean() > 0.97
    assert (view.color - wanted).abs().median() < 0.01
