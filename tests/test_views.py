"""Other views of scenes: the same world from elsewhere, exact to rounding, with captions that are true of it."""

import math

import pytest
import torch

from mforce.scenes import (
    Camera,
    captions,
    own_camera,
    picture_bounds,
    render,
    sample_layouts,
    sample_views,
    write_dataset,
)
from mforce.scenes.vocabulary import SHAPES

SIZE = 32


@pytest.fixture(scope="module")
def layout():
    return sample_layouts(24, seed=5)


@pytest.fixture(scope="module")
def own(layout):
    return own_camera(layout)


def test_the_layouts_own_camera_is_the_default(layout, own):
    for first, second in zip(render(layout, SIZE), render(layout, SIZE, camera=own), strict=True):
        assert torch.equal(first, second)


def test_a_crop_is_a_part_of_the_whole_picture(layout, own):
    rgb, depth = render(layout, 2 * SIZE)
    for left, top in ((0, 0), (1, 0), (0, 1), (1, 1)):
        cut_rgb, cut_depth = render(layout, SIZE, camera=own.window(left / 2, top / 2, 0.5))
        rows, columns = slice(top * SIZE, (top + 1) * SIZE), slice(left * SIZE, (left + 1) * SIZE)
        part = depth[:, rows, columns]
        # Rays differ by rounding, which decides at the very edge of a surface.
        assert ((cut_depth - part).abs() > 1e-4 * part).float().mean() < 1e-3
        assert ((cut_rgb - rgb[:, :, rows, columns]).abs() > 1e-3).float().mean() < 5e-3


def test_a_window_of_a_window_is_a_window(own):
    twice, once = own.window(0.5, 0.25, 0.5).window(0.5, 0.0, 0.5), own.window(0.75, 0.25, 0.25)
    torch.testing.assert_close(twice.center, once.center)
    torch.testing.assert_close(twice.scale, once.scale)


def at_pixels(camera: Camera, depth: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """World points (B, P, 3) of pixels, by the camera's matrices alone."""
    size = depth.shape[-1]
    pixels = torch.stack((columns + 0.5, rows + 0.5, torch.full_like(rows, size)), -1) / size
    z = depth[:, rows.long(), columns.long()]
    local = torch.einsum("bij,pj->bpi", camera.intrinsics().inverse(), pixels) * z[..., None]
    pose = camera.pose()
    return torch.einsum("bij,bpj->bpi", pose[:, :3, :3], local) + pose[:, None, :3, 3]


def seen_by(camera: Camera, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Picture coordinates (B, P, 2) in shares of the side, and z-depth (B, P), of world points."""
    pose = camera.pose()
    local = torch.einsum("bji,bpj->bpi", pose[:, :3, :3], points - pose[:, None, :3, 3])
    shown = torch.einsum("bij,bpj->bpi", camera.intrinsics(), local / local[..., 2:])
    return shown[..., :2], local[..., 2]


@pytest.mark.parametrize(
    "move",
    [
        {"right": 0.4, "turn": -0.12},
        {"up": 0.3, "tilt": 0.1},
        {"forward": 0.3, "turn": 0.05},
        {"turn": 0.2, "tilt": -0.05},
    ],
)
def test_two_poses_see_the_same_points(layout, own, move):
    """A point that one camera sees is where the other's matrices say, or hidden behind something nearer."""
    first = own.window(0.1, 0.2, 0.8)
    second = first.moved(**move)
    _, depth = render(layout, SIZE, camera=first)
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randint(SIZE, (40,), generator=generator).float() for _ in range(2))
    place, distance = seen_by(second, at_pixels(first, depth, rows, columns))
    agree = []
    for point in range(len(rows)):
        # One ray of the second camera through the very point: a picture of one pixel that is tiny around it.
        tiny = 1e-6
        ray = Camera(
            second.position,
            second.heading,
            second.pitch,
            second.scale * tiny,
            second.center + second.scale[:, None] * (2 * place[:, point] - 1),
        )
        found = render(layout, 1, 1, camera=ray)[1][:, 0, 0]
        assert (found <= distance[:, point] + 2e-3).all()
        agree.append((found - distance[:, point]).abs() < 2e-3)
    assert torch.stack(agree).float().mean() > 0.9


def test_a_turned_camera_has_a_rotation(own):
    pose = own.moved(turn=0.3, tilt=0.2, right=1).pose()
    torch.testing.assert_close(pose[:, :3, :3] @ pose[:, :3, :3].mT, torch.eye(3).expand(len(pose), 3, 3))
    assert (torch.linalg.det(pose[:, :3, :3]) > 0).all()


def test_bounds_hold_the_objects():
    """A sphere's silhouette lies in its bounds, in every view, and fills much of them."""
    layout = sample_layouts(200, seed=5)
    lone = (layout.exists.sum(1) == 1) & (layout.shape[:, 0] == SHAPES.index("sphere"))
    camera, layout = sample_views(layout, 5, share=1.0)[0][lone], layout[lone]
    assert (camera.center != 0).any(1).sum() > 3
    bounds = picture_bounds(layout, camera)
    steps = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    empty = torch.zeros_like(layout.exists)
    alone = type(layout)(**{**vars(layout), "exists": empty})
    solid = render(layout, SIZE, camera=camera)[1] < render(alone, SIZE, camera=camera)[1] - 1e-3
    for row in range(len(layout)):
        left, top, right, bottom = bounds[row, 0]
        inside = ((steps >= left) & (steps <= right))[None] & ((steps >= top) & (steps <= bottom))[:, None]
        assert not (solid[row] & ~inside).any()
        assert solid[row].sum() > 0.3 * inside.sum()  # bounds of a box, around a ball


def test_views_name_what_they_show():
    layout = sample_layouts(400, seed=9)
    camera, shown = sample_views(layout, 9, share=1.0)
    bounds = picture_bounds(layout, camera)
    middle = (bounds[..., :2] + bounds[..., 2:]) / 2
    named = shown.exists
    assert (named <= layout.exists).all()
    far_outside = (bounds[..., 0] > 1) | (bounds[..., 2] < -1) | (bounds[..., 1] > 1) | (bounds[..., 3] < -1)
    assert not (named & far_outside).any()
    wholly_inside = (bounds.abs() <= 1).all(-1)
    assert (named | ~(wholly_inside & layout.exists)).all()
    texts = captions(shown)
    assert all(1 <= len(text.split()) <= 16 for text in texts)
    for row, text in enumerate(texts):
        if " on the left" in text:
            assert middle[row, named[row]][:, 0].min() < 0
    assert any(not present.any() for present in named), "some crops show the room alone"


def test_views_are_a_function_of_seed_and_index():
    every = sample_views(sample_layouts(40, 3), 3, share=0.5)[0]
    later = sample_views(sample_layouts(10, 3, start=30), 3, 30, share=0.5)[0]
    for name in vars(every):
        assert torch.equal(getattr(every, name)[30:], getattr(later, name))


def test_share_of_views():
    layout = sample_layouts(600, 2)
    own, none = own_camera(layout), sample_views(layout, 2, share=0.0)[0]
    assert all(torch.equal(getattr(own, name), getattr(none, name)) for name in vars(own))
    some = sample_views(layout, 2, share=0.3)[0]
    different = (some.scale != own.scale) | (some.heading != own.heading)
    assert abs(float(different.float().mean()) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 600)
    with pytest.raises(ValueError, match="between 0 and 1"):
        sample_views(layout, 2, share=1.5)
    with pytest.raises(ValueError, match="as many cameras"):
        render(layout, SIZE, camera=own[:3])


def test_shards_of_views(tmp_path):
    write_dataset(tmp_path, 6, seed=4, size=32, views=0.8, progress=False)
    with pytest.raises(ValueError, match="other scenes"):
        write_dataset(tmp_path, 6, seed=4, size=32, progress=False)
