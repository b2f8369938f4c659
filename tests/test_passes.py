"""Passes, layered files, stereo, lens effects and the sky against scenes whose answer is known, and other libraries."""

import math

import numpy as np
import OpenEXR
import pytest
import torch

from mforce.mforce_core.depth.edges import depth_edges
from mforce.mforce_core.depth.files import read_depth
from mforce.mforce_core.depth.layered_exr import Layers, write_layers
from mforce.mforce_core.depth.sky import find_sky, handle_sky
from mforce.mforce_core.picture.color import to_linear, to_srgb
from mforce.mforce_core.scene3d.lens_effects import depth_of_field, fog
from mforce.mforce_core.scene3d.passes import ambient_occlusion, normal_pass, position_pass
from mforce.mforce_core.scene3d.point_cloud import camera_points
from mforce.mforce_core.scene3d.render_view import render_view
from mforce.mforce_core.scene3d.stereo import CENTERED, LAYOUTS, LEFT_IS_PICTURE, compose, eye_cameras
from test_render_view import CAMERA, SIZE, STILL, surface_of, trace

ALL = torch.ones(SIZE, SIZE, dtype=torch.bool)


def slab(normal, distance=3.0):
    rays = camera_points(torch.ones(SIZE, SIZE), CAMERA)
    return distance * normal[2] / (rays @ normal)


def corner(depth=4.0):
    """Two walls that meet at a right angle, the crease upright in the middle and away from the camera."""
    rays = camera_points(torch.ones(SIZE, SIZE), CAMERA)
    return depth / (1.0 + rays[..., 0].abs())


def test_normals_and_positions_of_a_plane():
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.4, -0.9]), dim=0)
    depth = slab(normal)
    missing = ALL.clone()
    missing[:4] = False
    passed = normal_pass(depth, missing, CAMERA, 0.5)
    flip = torch.tensor([1.0, -1.0, -1.0])
    torch.testing.assert_close(passed[missing], (normal * flip).expand_as(passed[missing]), atol=1e-4, rtol=0)
    assert (passed[~missing] == 0).all()
    place = position_pass(depth, missing, CAMERA)
    torch.testing.assert_close(place[missing], (camera_points(depth, CAMERA) * flip)[missing])
    # A camera two units to the right of the world's origin that looks back along it.
    extrinsics = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    extrinsics[:3, 3] = -extrinsics[:3, :3] @ torch.tensor([2.0, 0.0, 0.0])
    world = position_pass(depth, ALL, CAMERA, extrinsics)
    middle = world[SIZE // 2 - 1 : SIZE // 2 + 1, SIZE // 2 - 1 : SIZE // 2 + 1].mean((0, 1))
    torch.testing.assert_close(middle, torch.tensor([2.0, 0.0, 3.0]), atol=0.01, rtol=0)


def light_beside_a_wall(away, radius, bias=0.05):
    """What the definition says for a point on a floor, so far from an endless wall: integrated, not searched."""
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    heights = np.linspace(0, radius, 400)
    ahead = np.cos(angles) > 1e-6
    foot = away / np.cos(angles[ahead])[:, None]
    distance = np.hypot(foot, heights)
    taken = np.maximum(heights / distance - bias, 0) * np.maximum(1 - (distance / radius) ** 2, 0)
    return 1 - taken.max(1).sum() / len(angles) / (1 - bias)


@pytest.mark.parametrize("normal", [[0.0, 0.0, -1.0], [0.5, 0.3, -0.81]])
def test_an_open_plane_is_not_occluded(normal):
    depth = slab(torch.tensor(normal))
    light = ambient_occlusion(depth, ALL, CAMERA, radius=1.0, edge_threshold=0.5)
    assert light.min() > 0.999


def test_a_corner_loses_up_to_half_of_its_light_and_less_and_less_away_from_it():
    depth = corner()
    light = ambient_occlusion(depth, ALL, CAMERA, radius=0.5, edge_threshold=0.5)[SIZE // 4 : -SIZE // 4].mean(0)
    right = light[SIZE // 2 :]
    # In a right angle, half of the directions above a wall meet the other one; what is farther away counts less.
    assert 0.5 < right[0] < 0.75
    away = camera_points(depth, CAMERA)[SIZE // 2, SIZE // 2 :, 0] * math.sqrt(2)
    for place in (0.1, 0.15, 0.2, 0.3, 0.4):  # from two pixels on
        pixel = (away - place).abs().argmin()
        assert float(right[pixel]) == pytest.approx(light_beside_a_wall(float(away[pixel]), radius=0.5), abs=0.03)
    assert right[away > 0.55].min() > 0.99
    smooth = right[away < 0.5].unfold(0, 3, 3).mean(1)
    assert (smooth.diff() > 0).all()


def test_a_layered_file_is_what_openexr_reads(tmp_path):
    color, depth, _ = trace(STILL)
    depth[:5] = math.nan
    known = ~depth.isnan()
    normals = normal_pass(depth, known, CAMERA, 0.1)
    place = position_pass(depth, known, CAMERA)
    occlusion = torch.rand(SIZE, SIZE)
    layers = Layers(*(values.numpy() for values in (color, depth, normals, place, occlusion)))
    write_layers(tmp_path / "all.exr", layers, {"workflow": "{}"})
    with OpenEXR.File(str(tmp_path / "all.exr"), separate_channels=True) as file:
        found = {name: channel.pixels for name, channel in file.channels().items()}
        assert file.header()["workflow"] == "{}"
    assert set(found) == {*"RGBAZ", "mask.A", "N.X", "N.Y", "N.Z", "P.X", "P.Y", "P.Z", "AO.R"}
    np.testing.assert_array_equal(found["Z"], torch.where(known, depth, 0.0))
    np.testing.assert_array_equal(found["mask.A"] > 0.5, known)
    assert found["A"].min() == 1
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    for index, name in enumerate("RGB"):
        np.testing.assert_allclose(found[name], linear[..., index], rtol=1e-3)
        np.testing.assert_allclose(found[f"N.{'XYZ'[index]}"], normals[..., index], atol=1e-3)
        np.testing.assert_array_equal(found[f"P.{'XYZ'[index]}"], place[..., index])
    np.testing.assert_allclose(found["AO.R"], occlusion, atol=1e-3)
    # Our own reader takes the depth from it.
    read = read_depth(tmp_path / "all.exr").depth
    np.testing.assert_array_equal(read, depth)


def test_without_passes_their_layers_are_not_there(tmp_path):
    write_layers(tmp_path / "few.exr", Layers(np.zeros((4, 4, 3), np.float32), np.ones((4, 4), np.float32)))
    with OpenEXR.File(str(tmp_path / "few.exr"), separate_channels=True) as file:
        assert set(file.channels()) == {*"RGBAZ", "mask.A"}


@pytest.mark.parametrize("eyes", [CENTERED, LEFT_IS_PICTURE])
def test_both_eyes_see_what_a_ray_tracer_sees_and_agree_at_the_screen(eyes):
    color, depth, _ = trace(STILL)
    screen = 6.0
    # So that lenses are shifted by whole pixels: by 2 each way, or by 4 on the right alone.
    baseline = 4 * screen / (float(CAMERA[0, 0]) * SIZE)
    cameras = eye_cameras(CAMERA, baseline, screen, eyes)
    assert cameras[1][0].position[0] - cameras[0][0].position[0] == pytest.approx(baseline)
    shifts = []
    for pose, lens in cameras:
        view = render_view(surface_of(depth), color, CAMERA, pose, lens=lens)
        wanted, wanted_depth, _ = trace(pose)
        # The tracer's lens is not shifted, so its picture is.
        shift = round(float(lens[0, 2] - 0.5) * SIZE)
        shifts.append(shift)
        wanted, wanted_depth = wanted.roll(shift, dims=1), wanted_depth.roll(shift, dims=1)
        seen = (view.coverage >= 1) & ~depth_edges(wanted_depth, 0.08)
        seen[:, : max(shift, 0) + 1] = False
        seen[:, SIZE + min(shift, 0) - 1 :] = False
        assert seen.float().mean() > 0.6
        difference = (view.color - wanted).abs()[seen]
        assert difference.mean() < 2e-3
        assert difference.quantile(0.99) < 0.05
        # A point on the screen's distance is where it was.
        point = torch.tensor([0.4, -0.3, screen])
        moved = point - pose.position
        at = lens[0, 0] * moved[0] / moved[2] + lens[0, 2], lens[1, 1] * moved[1] / moved[2] + lens[1, 2]
        own = CAMERA[0, 0] * point[0] / screen + 0.5, CAMERA[1, 1] * point[1] / screen + 0.5
        assert float(at[0]) == pytest.approx(float(own[0]), abs=1e-6)
        assert float(at[1]) == pytest.approx(float(own[1]), abs=1e-6)
    assert shifts == ([-2, 2] if eyes == CENTERED else [0, 4])


def test_layouts_of_two_eyes():
    left, right = torch.rand(2, 6, 9, 3).unbind(0)
    found = {layout: compose(left, right, layout) for layout in LAYOUTS}
    assert torch.equal(found["side by side"], torch.cat([left, right], 1))
    assert torch.equal(found["over under"], torch.cat([left, right], 0))
    assert found["half side by side"].shape == (6, 10, 3)
    torch.testing.assert_close(found["half side by side"][:, 0], left[:, :2].mean(1))
    torch.testing.assert_close(found["half side by side"][:, 4], left[:, 8])
    torch.testing.assert_close(found["half over under"][5], right[4:6].mean(0))
    anaglyph = found["anaglyph (red cyan)"]
    assert torch.equal(anaglyph[..., 0], left[..., 0])
    assert torch.equal(anaglyph[..., 1:], right[..., 1:])


def test_a_point_of_light_becomes_the_disc_of_a_thin_lens():
    side, focus, far = 101, 2.0, 8.0
    image = torch.zeros(side, side, 3)
    image[50, 50] = 1.0
    depth = torch.full((side, side), far)
    blurred = to_linear(depth_of_field(image, depth, depth > 0, focus=focus, strength=0.2, largest=0.5).double())[
        ..., 0
    ]
    radius = 0.5 * side * 0.2 * (1 - focus / far)
    rows, columns = torch.meshgrid(torch.arange(side) - 50.0, torch.arange(side) - 50.0, indexing="ij")
    away = torch.hypot(rows, columns)
    assert blurred[away > radius + 1.5].max() < 1e-6
    assert blurred.sum() == pytest.approx(1.0, rel=0.15)
    share = blurred[away < radius].sum() / blurred.sum()
    assert share > 0.85


def test_what_is_in_focus_stays_and_its_background_does_not_bleed_over_it():
    side = 96
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(side, side, 3, generator=generator)
    depth = torch.full((side, side), 50.0)
    depth[30:60, 30:60] = 2.0
    known = torch.ones_like(depth, dtype=torch.bool)
    seen = depth_of_field(image, depth, known, focus=2.0, strength=0.08, largest=0.2)
    torch.testing.assert_close(seen[30:60, 30:60], image[30:60, 30:60], atol=2e-3, rtol=0)
    assert seen[:20].std() < 0.5 * image[:20].std()
    missing = depth_of_field(image, depth, depth < 3, focus=2.0, strength=0.08, largest=0.2)
    assert missing[:20].std() < 0.5 * image[:20].std()
    torch.testing.assert_close(depth_of_field(image, depth, known, focus=2.0, strength=0.0, largest=0.2), image)


def test_fog_halves_what_is_seen_with_every_distance():
    image = torch.full((1, 4, 3), 0.8)
    depth, color = torch.tensor([[1.0, 3.0, 5.0, 9.0]]), torch.tensor([0.2, 0.3, 0.4])
    valid = torch.tensor([[True, True, True, False]])
    seen = to_linear(fog(image, depth, valid, color=color, start=1.0, half=2.0))
    light, gray = to_linear(image[0, 0]), to_linear(color)
    for place, left in enumerate([1.0, 0.5, 0.25, 0.0]):
        torch.testing.assert_close(seen[0, place], left * light + (1 - left) * gray)
    thin = to_linear(fog(image, depth, valid, color=color, start=1.0, half=2.0, most=0.5))
    torch.testing.assert_close(thin[0, 3], 0.5 * light + 0.5 * gray)


def test_srgb_there_and_back():
    values = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(to_srgb(to_linear(values)), values, atol=1e-7, rtol=0)
    assert float(to_linear(torch.tensor(128 / 255))) == pytest.approx(0.2158605, abs=1e-6)


def test_the_sky_is_far_or_said_and_goes_missing_or_to_a_backdrop():
    depth = torch.full((20, 20), 20.0)
    depth[10:] = 40.0
    depth[:6] = 400.0
    depth[2, 7] = 30.0  # a speck in the sky
    valid = torch.ones_like(depth, dtype=torch.bool)
    valid[19, 0] = False
    sky = find_sky(depth, valid, far=5.0)
    assert sky[:6].all()
    assert not sky[6:].any()
    assert not find_sky(depth, valid, far=0.0).any()
    said = torch.zeros_like(valid)
    said[6:8] = True
    both = find_sky(depth, valid, far=5.0, sure=said)
    assert both[:8].all()
    assert not both[8:].any()
    gone, left = handle_sky(depth, valid, sky, "missing", 10.0)
    assert torch.equal(left, valid & ~sky)
    placed, kept = handle_sky(depth, valid, sky, "far away", 10.0)
    assert (placed[sky] == 400.0).all()
    assert torch.equal(placed[~sky], depth[~sky])
    assert torch.equal(kept, valid | sky)
    assert torch.equal(gone[~sky], depth[~sky])
