"""Views around the corner: what is held, how pieces of a scene come together, and what goes wrong in a sentence."""

import json
import re

import pytest
import torch
from scipy.spatial.transform import Rotation

from mforce.evaluation.view_study import camera_of, measures_in_holes, world_of
from mforce.mforce_core import Pipeline, sample
from mforce.mforce_core.explore.filling import FillSettings, PipelineFill
from mforce.mforce_core.explore.hold import Hold, fill_path
from mforce.mforce_core.explore.route import ROUTES, STEREO, cameras_between, cameras_of, route_cameras
from mforce.mforce_core.explore.view import Filled, Seen
from mforce.mforce_core.explore.walk import extend, frame
from mforce.mforce_core.explore.world import Camera, World
from mforce.mforce_core.scene3d.camera_files import CONVENTIONS, CameraPath, read_json, write_json
from mforce.mforce_core.scene3d.point_cloud import intrinsics_from_fov
from mforce.mforce_core.scene3d.poses import Pose
from mforce.mforce_core.scene3d.render_view import View, render_view
from mforce.mforce_core.scene3d.viewer import Shot
from mforce.scenes import render, sample_layouts
from mforce.scenes.camera import own_camera

SIZE = 128
LENS = intrinsics_from_fov(SIZE, SIZE)
HOME = Camera(Pose(torch.eye(3), torch.zeros(3)), LENS)


def place(right=0.0, up=0.0, forward=0.0, turn=None):
    rotation = torch.eye(3) if turn is None else torch.from_numpy(turn.as_matrix()).float()
    return Camera(Pose(rotation, torch.tensor([right, -up, forward])), LENS)


def box_before_a_wall():
    """A picture of a box 2 away before a wall 4 away, in two colors."""
    depth = torch.full((SIZE, SIZE), 4.0)
    color = torch.tensor([0.2, 0.4, 0.8]).expand(SIZE, SIZE, 3).clone()
    depth[40:90, 50:80], color[40:90, 50:80] = 2.0, torch.tensor([0.9, 0.3, 0.1])
    return Filled(color, depth)


def a_world():
    world = World(softness=0)
    world.add(HOME, box_before_a_wall())
    return world


@pytest.fixture(scope="module")
def nano():
    return Pipeline.load("nano")


def test_one_piece_is_seen_as_its_picture_is_rendered():
    world, there = a_world(), place(right=0.3)
    own = world.pieces[0]
    wanted = render_view(own.surface, own.view.color, LENS, there.pose)
    found = world.see(there)
    assert torch.equal(found.color, wanted.color)
    assert torch.equal(found.depth, wanted.depth)


@pytest.mark.parametrize("number", [0, 3])
def test_what_a_camera_adds_is_where_the_scene_has_it(number):
    """Filled with the scene's own rendering, the holes of a view in between have its depth."""
    layout = sample_layouts(1, 1_000_000, number)
    own = own_camera(layout)
    world = world_of(layout, own, 0.0)
    far, near = (own.moved(right=step) for step in (0.4, 0.2))
    before = Seen.of(world.see(camera_of(own, near)))
    true_color, true_depth = render(layout, SIZE, camera=far)
    truth = Filled(true_color[0].movedim(0, -1), true_depth[0])
    extend(world, camera_of(own, far), lambda seen, _: truth)
    after = Seen.of(world.see(camera_of(own, near)))
    assert after.holes.float().mean() < 0.35 * before.holes.float().mean()
    closed = before.holes & after.known
    wanted = render(layout, SIZE, camera=near)[1][0]
    error = ((after.depth - wanted).abs() / wanted)[closed]
    assert error.median() < 0.01
    assert error.mean() < 0.05


def test_the_cloud_has_the_points_of_all_pieces_in_one_world():
    world = a_world()
    there = place(right=0.5)
    seen = Seen.of(world.see(there))
    world.add(there, seen.finished(seen.color, torch.full_like(seen.depth, 4.0)), seen.holes)
    assert len(world.pieces) == 2
    first, both = World(softness=0), world.cloud()
    first.add(HOME, box_before_a_wall())
    added = both.points[len(first.cloud()) :]
    assert len(added) > 200
    # The wall goes on, also beyond the first picture's edge.
    assert torch.allclose(added[:, 2], torch.tensor(-4.0), atol=0.02)
    assert added[:, 0].max() > first.cloud().points[:, 0].max() + 0.3


def test_what_other_views_added_is_known_in_a_view():
    there, beyond = place(right=0.5), place(right=0.7)
    rendered = a_world().see(beyond)
    assert World(softness=0).completed(beyond, rendered) is rendered
    seen, added = Seen.of(a_world().see(there)), World(softness=0)
    added.add(there, seen.finished(seen.color, torch.full_like(seen.depth, 4.0)), seen.holes)
    view = added.completed(beyond, rendered)
    known = (rendered.coverage >= 1) & (rendered.depth > 0)
    gained = (view.coverage >= 1) & (view.depth > 0) & ~known
    assert torch.equal(view.color[known], rendered.color[known])
    assert torch.equal(view.depth[known], rendered.depth[known])
    assert 0.5 < gained.sum() / (~known).sum() < 0.95  # the rest comes into view only here
    assert torch.allclose(view.depth[gained], torch.tensor(4.0), atol=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_renders_the_views_of_a_cpu():
    there, worlds = place(right=0.5), [World(softness=2, device=torch.device(name)) for name in ("cpu", "cuda")]
    for world in worlds:
        world.add(HOME, box_before_a_wall())
        seen = Seen.of(world.see(there))
        world.add(there, seen.as_it_is(), seen.holes)
    on_cpu, on_gpu = (world.see(place(right=0.3)) for world in worlds)
    assert on_gpu.depth.device.type == "cpu"
    kept = [piece for world in worlds for piece in world.pieces]
    assert {value.device.type for piece in kept for value in (*vars(piece.surface).values(), piece.view.color)} == {
        "cpu"
    }
    assert (on_cpu.coverage == on_gpu.coverage).float().mean() > 0.99
    both = (on_cpu.coverage >= 1) & (on_gpu.coverage >= 1)
    assert torch.allclose(on_cpu.depth[both], on_gpu.depth[both], rtol=1e-3)
    assert len(worlds[0].cloud()) == pytest.approx(len(worlds[1].cloud()), rel=0.01)


def test_slits_along_an_outline_stay_open():
    world, new = a_world(), torch.zeros(SIZE, SIZE, dtype=torch.bool)
    new[10:60, 20:22] = True
    world.add(place(right=0.1), box_before_a_wall(), new)
    assert len(world.pieces) == 1
    new[10:60, 20:24] = True
    world.add(place(right=0.1), box_before_a_wall(), new)
    assert world.pieces[1].surface.valid.nonzero().amin(0).tolist() == [9, 19]


def test_of_two_pieces_the_nearer_is_seen_and_shares_lie_beside_each_other(monkeypatch):
    def flat(color, coverage, depth):
        return View(torch.full((1, 1, 3), color), torch.tensor([[coverage]]), torch.tensor([[depth]]))

    views = iter([flat(0.0, 1.0, 5.0), flat(1.0, 0.25, 2.0), flat(0.5, 0.5, 3.0)])
    monkeypatch.setattr("mforce.mforce_core.explore.world.render_view", lambda *_, **__: next(views))
    world = a_world()
    world.pieces *= 3
    seen = world.see(HOME)
    assert seen.color[0, 0, 0] == pytest.approx(0.25 * 1.0 + 0.5 * 0.5 + 0.25 * 0.0)
    assert seen.coverage == 1
    assert seen.depth == 3.0


def test_known_cells_and_pixels_are_held():
    seen = Seen.of(a_world().see(place(right=0.3)))
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randn(1, 128, 8, 8, generator=generator)
    hold = Hold.of(seen, rgb)
    made = hold.correct_rgb(torch.zeros_like(rgb))
    # Channels are (c, row in the token, column in the token): cells of 8 pixels.
    for row, column in ((0, 0), (5, 4), (9, 15)):
        cell = seen.known[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        part = made[0].view(32, 2, 2, 8, 8)[:, row % 2, column % 2, row // 2, column // 2]
        given = rgb[0].view(32, 2, 2, 8, 8)[:, row % 2, column % 2, row // 2, column // 2]
        assert torch.equal(part, given if cell.all() else torch.zeros(32))
    assert 0.3 < float(hold.kept.mean()) < 1
    prediction = torch.rand(1, 256, 8, 8, generator=generator) + 0.2
    for maps in (hold.depth_of(prediction), hold.depth_of(hold.correct_depth(prediction))):
        assert torch.allclose(maps[0][seen.known], seen.depth[seen.known], rtol=1e-4)
    start = hold.depth_of(hold.depth_latents())[0]
    assert torch.allclose(start, seen.depth, rtol=1e-4)


def test_a_rollout_ends_where_its_predictions_are_corrected_to(nano):
    wanted = torch.randn(1, 64, 128), torch.rand(1, 64, 256)
    for solver in ("euler", "heun"):
        found = sample(
            nano.model,
            nano.features([""]),
            (8, 8),
            path=fill_path(0.5, 1).build(2),
            cfg=1.0,
            rgb=torch.zeros_like(wanted[0]),
            depth=torch.zeros_like(wanted[1]),
            solver=solver,
            correct=lambda clean: type(clean)(*wanted),
        )
        for one, other in zip(found, wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_every_prediction_is_held(nano, monkeypatch):
    held = []
    for name in ("correct_rgb", "correct_depth"):
        monkeypatch.setattr(Hold, name, lambda self, clean, name=name: held.append(name) or clean)
    PipelineFill(nano, FillSettings(steps=3, resample=1, depth_steps=2))(Seen.of(a_world().see(place(right=0.3))))
    # Three steps, two of them once more; then two in which the picture is finished.
    assert held.count("correct_rgb") == 5
    assert held.count("correct_depth") == 5 + 2


def test_a_filled_view_keeps_what_is_known(nano):
    steps = []
    filler = PipelineFill(nano, FillSettings(steps=2, depth_steps=1), lambda: steps.append(1))
    seen = Seen.of(a_world().see(place(right=0.3)))
    view = filler(seen)
    assert torch.equal(view.depth[seen.known], seen.depth[seen.known])
    assert torch.allclose(view.color[seen.known], seen.color[seen.known], atol=1e-6)
    assert torch.isfinite(view.depth).all()
    assert (view.depth > 0).all()
    assert not torch.equal(view.color[seen.holes], seen.color[seen.holes])
    assert len(steps) == filler.steps == 3
    assert torch.equal(filler(seen).color, view.color)
    with pytest.raises(ValueError, match="100x128; both sides must be multiples of 16"):
        filler(Seen(*(maps[:, :100] for maps in vars(seen).values())))


def test_walking_leaves_no_hole_and_no_view_without_one_is_filled():
    world, filled = a_world(), []

    def fill(seen, number):
        filled.append(number)
        return Filled(seen.color, seen.depth)

    way = [HOME, *route_cameras("to the right", 3, 0.2, HOME, torch.tensor([0.0, 0.0, 4.0]))]
    steps = [extend(world, camera, fill, number) for number, camera in enumerate(way)]
    assert filled == [1, 2, 3]
    assert not steps[0].made.any()
    assert steps[1].made.any()
    picture, depth = frame(world, place(right=0.4))
    assert (depth > 0).float().mean() > 0.99
    assert picture.amin() > 0.05


def test_a_camera_inside_the_wall_is_refused():
    with pytest.raises(ValueError, match=r"camera 1 sees only 0% .* inside a wall"):
        extend(a_world(), place(forward=5.0), lambda *_: None)


def test_measures_count_holes_alone():
    generator = torch.Generator().manual_seed(0)
    color = 0.2 + 0.6 * torch.rand(SIZE, SIZE, 3, generator=generator)
    truth = Filled(color, 2 + torch.rand(SIZE, SIZE, generator=generator))
    known = torch.ones(SIZE, SIZE, dtype=torch.bool)
    known[:, 90:] = False
    perfect = measures_in_holes(truth, truth, known)
    assert [perfect[name] for name in ("sharpness", "absrel", "seam")] == pytest.approx([1, 0, 0])
    hole = ~known
    off = Filled(color + 0.1 * hole[..., None], truth.depth * (1 + 0.25 * hole))
    found = measures_in_holes(off, truth, known)
    assert found["psnr"] == pytest.approx(20, abs=0.01)
    assert found["absrel"] == pytest.approx(0.25)
    assert found["seam"] == pytest.approx(float(torch.tensor(1.25).log()))
    elsewhere = Filled(color + 0.1 * known[..., None], truth.depth)
    assert measures_in_holes(elsewhere, truth, known)["psnr"] > 100


def test_routes_go_where_they_are_called():
    pivot = torch.tensor([0.0, 0.0, 4.0])
    for route, wanted in {
        "walk in": [0, 0, 2],
        "to the left": [-2, 0, 0],
        "up": [0, -2, 0],
        "back": [0, 0, -2],
    }.items():
        last = route_cameras(route, 4, 0.5, HOME, pivot)[-1]
        assert last.pose.position.tolist() == pytest.approx(wanted)
    left, right = route_cameras(STEREO, 9, 0.03, HOME, pivot)
    assert float(right.pose.position[0] - left.pose.position[0]) == pytest.approx(0.12)
    assert all(len(route_cameras(route, 3, 0.1, HOME, pivot)) == (2 if route == STEREO else 3) for route in ROUTES)
    with pytest.raises(ValueError, match="no route 'moonwalk'"):
        route_cameras("moonwalk", 3, 0.1, HOME, pivot)
    shot = Shot(Pose(torch.eye(3), torch.tensor([1.0, 0.0, 0.0])), 4.0, float(LENS[1, 1]))
    own = Shot(HOME.pose, 4.0, float(LENS[1, 1]))
    assert [float(camera.pose.position[0]) for camera in cameras_between(own, shot, 2, (SIZE, SIZE))] == [0.5, 1.0]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_cameras_come_back_from_json(tmp_path, convention):
    turn = Rotation.from_euler("yxz", [20, -10, 5], degrees=True)
    cameras = [HOME, place(0.5, 0.2, 1.0, turn)]
    path = CameraPath(LENS.expand(2, 3, 3), torch.stack([camera.extrinsics for camera in cameras]), (SIZE, SIZE))
    write_json(tmp_path / "c.json", path, 1, "view", convention)
    text = (tmp_path / "c.json").read_text()
    assert json.loads(text)["convention"].startswith(convention)
    again = cameras_of(*read_json(text, LENS * 2, (SIZE, SIZE)))
    for one, other in zip(cameras, again, strict=True):
        assert torch.allclose(one.pose.rotation, other.pose.rotation, atol=1e-5)
        assert torch.allclose(one.pose.position, other.pose.position, atol=1e-5)
        assert torch.allclose(other.lens, LENS)


def test_opengl_matrices_are_y_up_and_opencv_ones_y_down():
    up = [[1, 0, 0, 0], [0, 1, 0, 0.3], [0, 0, 1, -2], [0, 0, 0, 1]]  # 0.3 up, 2 ahead
    (camera,) = cameras_of(*read_json(json.dumps({"frames": [{"transform_matrix": up}]}), LENS, (SIZE, SIZE)))
    assert camera.pose.position.tolist() == pytest.approx([0, -0.3, 2])
    down = [[1, 0, 0, 0], [0, 1, 0, 0.3], [0, 0, 1, -2]]  # the world's origin lies 0.3 below and 2 behind
    (camera,) = cameras_of(*read_json(json.dumps([{"world_to_camera": down}]), LENS, (SIZE, SIZE)))
    assert camera.pose.position.tolist() == pytest.approx([0, -0.3, 2])
    assert torch.equal(camera.lens, LENS)


def test_the_horizontal_angle_of_a_file_is_a_lens():
    """transforms.json of synthetic scenes for NeRFs has nothing but this angle, once for all frames."""
    wide = intrinsics_from_fov(96, 128, 90.0)
    text = json.dumps({"camera_angle_x": torch.pi / 2, "frames": [{"transform_matrix": torch.eye(4).tolist()}]})
    lenses, _ = read_json(text, intrinsics_from_fov(96, 128, 40.0), (96, 128))
    assert torch.allclose(lenses[0], wide)


@pytest.mark.parametrize(
    "left_out", [("fl_y",), ("fl_x",), ("cx", "cy"), ("fl_y", "cx", "cy"), ("w", "h"), ("fl_y", "cx", "cy", "w", "h")]
)
def test_what_a_lens_leaves_out_is_square_pixels_and_the_middle(left_out):
    whole = {"fl_x": 70.0, "fl_y": 70.0, "cx": 64.0, "cy": 48.0, "w": 128, "h": 96}
    given = {name: value for name, value in whole.items() if name not in left_out}
    lenses = [
        read_json(json.dumps([{"world_to_camera": torch.eye(4).tolist(), **lens}]), LENS, (96, 128))[0]
        for lens in (whole, given)
    ]
    assert torch.equal(*lenses)


def test_of_a_camera_of_another_shape_what_does_not_fit_is_cut_off():
    """The middle of a wide picture, and of a tall one, whose centers are shifted, as pixels of the views have it."""
    for (width, height), (view_width, view_height) in (((1920, 1080), (128, 128)), ((1080, 1920), (96, 64))):
        lens = {"fl_x": 1200, "fl_y": 1100, "cx": width / 2 + 54, "cy": height / 2 - 27, "w": width, "h": height}
        text = json.dumps([{"world_to_camera": torch.eye(4).tolist(), **lens}])
        (found,), _ = read_json(text, LENS, (view_height, view_width))
        pixels = torch.tensor([view_width, view_height, 1.0])[:, None] * found
        scale = max(view_width / width, view_height / height)
        wanted = [[1200 * scale, 0, view_width / 2 + 54 * scale], [0, 1100 * scale, view_height / 2 - 27 * scale]]
        assert torch.allclose(pixels[:2], torch.tensor(wanted))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not readable JSON"),
        ("{}", "has no frames"),
        ('{"frames": [{}]}', "neither transform_matrix"),
        ('{"frames": [{"transform_matrix": [[1, 2], [3, 4]]}]}', "not 4x4 finite"),
        (
            json.dumps([{"world_to_camera": [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]]}]),
            "scales, shears or mirrors",
        ),
        (
            json.dumps(
                [{"world_to_camera": torch.eye(4).tolist()} | dict.fromkeys(("fl_x", "fl_y", "cx", "cy", "w", "h"), 0)]
            ),
            "lens of camera 1",
        ),
        (json.dumps([{"world_to_camera": torch.eye(4).tolist(), "camera_angle_x": 4}]), "lens of camera 1"),
    ],
)
def test_cameras_that_cannot_be_used_are_named(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_json(text, LENS, (SIZE, SIZE))


@pytest.mark.parametrize(
    ("own", "shared", "said"),
    [
        (
            {},
            {"camera_model": "OPENCV", "k1": 0.03, "p2": -0.001},
            "(k1 0.03, p2 -0.001)",
        ),
        ({"k4": 0.1}, {}, "(k4 0.1)"),
        ({"camera_model": "OPENCV_FISHEYE"}, {"k1": 0.0}, "(the lens OPENCV_FISHEYE)"),
        ({}, {"is_fisheye": True}, "(the lens fisheye)"),
        ({}, {"camera_model": "EQUIRECTANGULAR"}, "(the lens EQUIRECTANGULAR)"),
    ],
)
def test_lenses_that_bend_lines_are_refused_and_straight_ones_taken(own, shared, said):
    """As nerfstudio writes them: of all frames in the file's head, or of each in its own."""
    straight = {"transform_matrix": torch.eye(4).tolist(), "camera_model": "OPENCV", "k1": 0, "k2": 0.0, "p1": 0.0}
    lenses, _ = read_json(json.dumps({"camera_model": "OPENCV", "frames": [straight]}), LENS, (SIZE, SIZE))
    assert torch.equal(lenses[0], LENS)
    bent = {"transform_matrix": torch.eye(4).tolist(), **own}
    straight |= {name: 0.0 for name in shared if name in ("k1", "p2")} | {"is_fisheye": False}
    with pytest.raises(ValueError, match="camera 2 bends straight lines " + re.escape(said)):
        read_json(json.dumps({**shared, "frames": [straight, bent]}), LENS, (SIZE, SIZE))
