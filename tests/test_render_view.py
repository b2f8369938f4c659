"""Views against a ray tracer that knows the scene, and against the pinhole formula."""

import math

import pytest
import torch
from torch.nn.functional import max_pool2d

from mforce.mforce_core.depth.edges import depth_edges
from mforce.mforce_core.scene3d.camera_path import PATHS, Move, combine, path_moves
from mforce.mforce_core.scene3d.holes import fill_from_background
from mforce.mforce_core.scene3d.point_cloud import intrinsics_from_fov
from mforce.mforce_core.scene3d.poses import Pose
from mforce.mforce_core.scene3d.render_view import render_view
from mforce.mforce_core.scene3d.surface import build_surface

SIZE = 96
CAMERA = intrinsics_from_fov(SIZE, SIZE, 60.0)
STILL = Pose(torch.eye(3), torch.zeros(3))
BALL, RADIUS, WALL, FLOOR = torch.tensor([-0.2, 0.1, 3.0]), 0.6, 6.0, 1.0


def trace(pose, size=SIZE, camera=CAMERA):
    """Color, z-depth and whether it is the ball, of a ball before a wall on a floor; float64, one ray per pixel."""
    steps = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    x = (steps[None] - 0.5) / camera[0, 0].double()
    y = (steps[:, None] - 0.5) / camera[1, 1].double()
    rays = torch.stack([x.expand(size, size), y.expand(size, size), torch.ones(size, size)], -1)
    rays = rays @ pose.rotation.double().T
    eye = pose.position.double()
    wall = (WALL - eye[2]) / rays[..., 2]
    floor = torch.where(rays[..., 1] > 0, (FLOOR - eye[1]) / rays[..., 1], torch.inf)
    depth = torch.minimum(wall, floor)
    offset = eye - BALL
    a, b, c = rays.square().sum(-1), (rays @ offset), offset.square().sum() - RADIUS**2
    ball = (-b - (b * b - a * c).clamp(min=0).sqrt()) / a
    hit = (b * b > a * c) & (ball > 0) & (ball < depth)
    depth = torch.where(hit, ball, depth)
    points = eye + depth[..., None] * rays
    # Smooth colors, so that resampling them costs little.
    color = 0.5 + 0.35 * torch.sin(points * torch.tensor([2.1, 2.9, 1.7])) + 0.1 * hit[..., None]
    return color.float(), depth.float(), hit


def surface_of(depth, softness=0, valid=None):
    return build_surface(depth, depth > 0 if valid is None else valid, edge_threshold=0.08, softness=softness)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_without_movement_every_valid_pixel_keeps_its_color_and_depth(samples):
    color, depth, _ = trace(STILL)
    noise = torch.rand(color.shape, generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(depth, dtype=torch.bool)
    valid[20:30, 40:60] = False
    valid[3, 3] = False
    view = render_view(surface_of(depth, 2, valid), noise, CAMERA, STILL, samples=samples)
    assert torch.equal(view.coverage, valid.float())
    torch.testing.assert_close(view.color[valid], noise[valid], rtol=0, atol=2e-5)
    exact = render_view(surface_of(depth, 0, valid), noise, CAMERA, STILL, samples=samples).depth
    # Flat quads round off the crease between floor and wall and the rim of the ball.
    torch.testing.assert_close(exact[valid], depth[valid], rtol=1e-2, atol=0)
    assert (exact[~valid] == 0).all()


MOVES = {
    "right": Move(right=0.06),
    "up and closer": Move(up=0.05, forward=0.25),
    "around": Move(orbit_right=9.0, orbit_up=-4.0),
    "back and turned": Move(forward=-0.3, roll=20.0, yaw=5.0, pitch=-4.0),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_moved_camera_sees_what_a_ray_tracer_sees(name):
    color, depth, _ = trace(STILL)
    pose = MOVES[name].pose(torch.tensor([0.0, 0.0, 4.0]))
    wanted, wanted_depth, _ = trace(pose)
    view = render_view(surface_of(depth), color, CAMERA, pose)
    seen = view.coverage == 1
    # Which points were in the first picture, and not hidden there?
    steps = (torch.arange(SIZE) + 0.5) / SIZE
    rays = torch.stack(torch.meshgrid((steps - 0.5) / CAMERA[0, 0], (steps - 0.5) / CAMERA[1, 1], indexing="xy"), -1)
    points = torch.cat([rays, torch.ones(SIZE, SIZE, 1)], -1) * wanted_depth[..., None]
    points = points @ pose.rotation.T + pose.position
    x, y = ((points[..., axis] / points[..., 2] * CAMERA[axis, axis] + 0.5) * SIZE for axis in (0, 1))
    inside = (x > 0) & (x < SIZE) & (y > 0) & (y < SIZE) & (points[..., 2] > 0)
    known = depth[y.long().clamp(0, SIZE - 1), x.long().clamp(0, SIZE - 1)]
    shown = inside & (points[..., 2] < known * 1.03)
    # Silhouettes may be off by the pixel in which the map has them.
    inner = ~depth_edges(wanted_depth, 0.08)
    assert (seen != shown).float().mean() < 0.02
    assert not (seen & ~shown & inner).any()
    both = seen & shown & inner
    assert both.float().mean() > 0.35
    difference = (view.color - wanted).abs()
    assert difference[both].max() < 0.05
    assert difference[both].mean() < 2e-3
    torch.testing.assert_close(view.depth[both], wanted_depth[both], rtol=0.015, atol=0)


def test_a_plane_lands_where_the_pinhole_formula_says():
    """A fronto-parallel plane at depth 2 moves by focal * shift / 2, here by exactly 6 and 3 pixels."""
    image = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(1))
    camera = intrinsics_from_fov(64, 64, 2 * math.degrees(math.atan(0.5)))  # focal length of 64 pixels
    pose = Pose(torch.eye(3), torch.tensor([2 * 6 / 64, 2 * 3 / 64, 0.0]))
    view = render_view(surface_of(torch.full((64, 64), 2.0)), image, camera, pose)
    torch.testing.assert_close(view.color[:-3, :-6], image[3:, 6:], rtol=0, atol=1e-4)
    assert (view.coverage[:-3, :-6] == 1).all()
    assert (view.coverage[-3:] == 0).all()
    assert (view.coverage[:, -6:] == 0).all()


def test_slanted_and_enlarged_surfaces_have_no_pinholes():
    """A wavy surface, seen from half the distance and from the side: nothing is open inside of its outline."""
    steps = torch.linspace(0, 12, SIZE)
    depth = 3.0 + 0.05 * torch.sin(steps)[:, None] * torch.cos(1.3 * steps) + 0.6 * torch.linspace(-1, 1, SIZE)
    image = torch.ones(SIZE, SIZE, 3)
    for move in (Move(forward=0.5), Move(orbit_right=-25.0), Move(orbit_up=12.0, forward=0.4, roll=33.0)):
        view = render_view(surface_of(depth), image, CAMERA, move.pose(torch.tensor([0.0, 0.0, 3.0])))
        covered = (view.coverage > 0).int()
        outside = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        for axis in (0, 1):
            outside |= covered.cummax(axis).values == 0
            outside |= covered.flip(axis).cummax(axis).values.flip(axis) == 0
        inside = max_pool2d(outside.float()[None], 5, stride=1, padding=2)[0] == 0
        assert inside.float().mean() > 0.5
        assert (view.coverage[inside] == 1).all()
        assert view.color[inside].min() > 0.9999


def test_the_near_surface_hides_the_far_one_and_leaves_a_hole():
    depth = torch.full((40, 40), 4.0)
    depth[10:30, 10:30] = 2.0
    image = torch.zeros(40, 40, 3)
    image[10:30, 10:30] = 1.0
    camera = intrinsics_from_fov(40, 40, 2 * math.degrees(math.atan(0.5)))
    # Far pixels move by 4, near ones by 8.
    view = render_view(surface_of(depth), image, camera, Pose(torch.eye(3), torch.tensor([0.4, 0.0, 0.0])))
    near = view.color[..., 0] > 0.5
    assert near[10:30, 2:22].all()
    assert near.sum() == 400
    hole = view.coverage < 1
    assert hole[10:30, 22:26].all()
    assert hole.sum() == 20 * 4 + 40 * 4
    filled = fill_from_background(view.color, view.coverage, view.depth)
    assert filled[hole].abs().max() < 1e-5
    assert torch.equal(filled[~hole], view.color[~hole])


def test_a_surface_seen_from_behind_is_a_hole():
    depth = torch.full((16, 16), 2.0)
    turned = Pose(torch.diag(torch.tensor([-1.0, 1.0, -1.0])), torch.tensor([0.0, 0.0, 4.0]))
    view = render_view(surface_of(depth), torch.ones(16, 16, 3), CAMERA, turned)
    assert (view.coverage == 0).all()


def test_soft_edges_leave_nothing_in_the_gap():
    """A step in depth blurred over three pixels: sharpened, no pixel is between near and far."""
    depth = torch.full((32, 48), 4.0)
    depth[:, :20] = 2.0
    depth[:, 20], depth[:, 21] = 2.6, 3.3
    pose = Pose(torch.eye(3), torch.tensor([0.3, 0.0, 0.0]))
    camera = intrinsics_from_fov(32, 48, 60.0)
    image = torch.ones(32, 48, 3)
    between = {}
    for softness in (0, 2):
        seen = render_view(surface_of(depth, softness), image, camera, pose).depth
        between[softness] = int(((seen > 2.2) & (seen < 3.8)).sum())
    assert between[0] > 0
    assert between[2] == 0


def test_rendering_is_repeatable():
    color, depth, _ = trace(STILL)
    pose = MOVES["around"].pose(torch.tensor([0.0, 0.0, 4.0]))
    first, second = (render_view(surface_of(depth, 2), color, CAMERA, pose) for _ in range(2))
    assert torch.equal(first.color, second.color)
    assert torch.equal(first.depth, second.depth)


@pytest.mark.parametrize("path", PATHS)
def test_paths_loop(path):
    """A step over the end is like any other: no jump where the clip starts again."""
    moves = path_moves(path, 40, 0.2)
    pivot = torch.tensor([0.0, 0.0, 2.0])
    positions = torch.stack([move.pose(pivot).position for move in moves])
    steps = (positions - positions.roll(1, 0)).norm(dim=1)
    assert steps[0] <= steps.max() * 1.0001
    assert len(moves) == 40
    assert (positions.norm(dim=1).max() > 0.1) == (path != "still")


def test_an_orbit_keeps_the_pivot_in_place():
    pivot = torch.tensor([0.3, -0.2, 2.5])
    pose = Move(orbit_right=30.0, orbit_up=10.0).pose(pivot)
    torch.testing.assert_close(pose.rotation.T @ (pivot - pose.position), pivot, rtol=0, atol=1e-6)
    assert pose.position[0] > 0
    assert pose.position[1] < 0
    assert combine(Move(right=1.0), Move(right=0.5, yaw=3.0)) == Move(right=1.5, yaw=3.0)


def test_bad_paths_are_named():
    with pytest.raises(ValueError, match="no camera path 'loop'"):
        path_moves("loop", 3, 0.1)
    with pytest.raises(ValueError, match="at least one frame"):
        path_moves("swing", 0, 0.1)
