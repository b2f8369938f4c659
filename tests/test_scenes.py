"""Scenes: depth against an independent ray march, captions against the pixels, and the shards on disk."""

import math
import re

import numpy as np
import pytest
import torch

from mforce.mforce_core import unproject
from mforce.scenes import MAX_OBJECTS, VOCABULARY, captions, read_shards, render, sample_layouts, write_dataset
from mforce.scenes.vocabulary import COLOR_HUES, COLORS, SHAPE_SYNONYMS, SHAPES

SIZE = 48
SCENES = 48


@pytest.fixture(scope="module")
def scenes():
    layout = sample_layouts(SCENES, seed=11)
    rgb, depth = render(layout, SIZE)
    return layout, rgb, depth


def rays(layout, row, size):
    """Directions with unit z-depth (size * size, 3) in the scene's frame, from a rotation matrix."""
    half = math.tan(math.radians(32.5))
    steps = ((np.arange(size) + 0.5) / size * 2 - 1) * half
    right, down = np.meshgrid(steps, steps)
    pitch = float(layout.pitch[row])
    camera = np.stack([right, -down, np.ones_like(right)], axis=-1).reshape(-1, 3)
    turn = np.array([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
    return camera @ turn.T


def room_distance(layout, row, points):
    x, y, z = points.T
    yaw = float(layout.yaw[row])
    across, ahead = x * math.cos(yaw) + z * math.sin(yaw), z * math.cos(yaw) - x * math.sin(yaw)
    left, right, back, ceiling = layout.room[row].double().numpy()
    return np.minimum.reduce([across + left, right - across, back - ahead, y, ceiling - y])


def solid_distance(layout, row, slot, points):
    """A signed distance, or a lower bound of it, to a solid; zero on its surface."""
    x, y, z = (points - [float(layout.position[row, slot, 0]), 0, float(layout.position[row, slot, 1])]).T
    r, h = float(layout.radius[row, slot]), float(layout.height[row, slot])
    shape = SHAPES[int(layout.shape[row, slot])]
    around = np.hypot(x, z)
    if shape == "sphere":
        return np.sqrt(around**2 + (y - r) ** 2) - r
    if shape == "cylinder":
        return np.maximum.reduce([around - r, y - h, -y])
    if shape == "cone":
        return np.maximum((around * h + y * r - r * h) / math.hypot(r, h), -y)
    angle = float(layout.angle[row, slot])
    across, ahead = x * math.cos(angle) + z * math.sin(angle), z * math.cos(angle) - x * math.sin(angle)
    return np.maximum.reduce([np.abs(across) - h / 2, np.abs(ahead) - h / 2, y - h, -y])


def scene_distance(layout, row, points):
    distances = [room_distance(layout, row, points)]
    distances += [solid_distance(layout, row, s, points) for s in range(MAX_OBJECTS) if bool(layout.exists[row, s])]
    return np.minimum.reduce(distances)


def hue_saturation(rgb):
    """Hue in degrees and saturation of an image (3, H, W)."""
    top, low = rgb.max(dim=0).values, rgb.min(dim=0).values
    red, green, blue = rgb
    span = (top - low).clamp_min(1e-6)
    hue = torch.where(
        top == red,
        (green - blue) / span,
        torch.where(top == green, 2 + (blue - red) / span, 4 + (red - green) / span),
    )
    return hue * 60 % 360, span / top.clamp_min(1e-6)


def mask_of(rgb, color):
    """The pixels (H, W) nearest in hue to a named color, among the saturated ones."""
    hue, saturation = hue_saturation(rgb)
    away = torch.stack([((hue - h + 180) % 360 - 180).abs() for h in COLOR_HUES.values()])
    return (away.argmin(dim=0) == COLORS.index(color)) & (saturation > 0.55)


@pytest.mark.parametrize("row", range(0, SCENES, 4))
def test_depth_is_where_a_ray_march_stops(scenes, row):
    layout, _, depth = scenes
    ray = rays(layout, row, SIZE)
    speed = np.linalg.norm(ray, axis=1)
    eye = np.array([0.0, float(layout.camera_height[row]), 0.0])
    t = np.zeros(len(ray))
    for _ in range(400):
        t += np.maximum(scene_distance(layout, row, eye + t[:, None] * ray), 0.0) / speed
    found = depth[row].flatten().double().numpy()
    # A ray that grazes a surface converges slowly, so the march may stop a little short of it, never beyond.
    error = found - t
    assert error.min() > -1e-3
    assert np.mean(error > 2e-3) < 2e-3
    assert np.abs(scene_distance(layout, row, eye + found[:, None] * ray)).max() < 2e-3


def test_shapes_all_occur(scenes):
    layout, _, _ = scenes
    assert set(layout.shape[::4][layout.exists[::4]].tolist()) == set(range(len(SHAPES)))


def test_unprojected_floor_is_a_plane(scenes):
    layout, _, depth = scenes
    pitch = layout.pitch[0].double()
    cloud = unproject(depth[0], fov_degrees=65.0, edge_threshold=None)
    points = cloud.points.double()
    # glTF axes: y up, the camera looks along -z; the height over the floor undoes the pitch.
    height = layout.camera_height[0] + points[:, 1] * pitch.cos() + points[:, 2] * pitch.sin()
    assert height.min() > -1e-3
    bottom = cloud.pixels >= SIZE * (SIZE - 1)
    assert height[bottom].abs().max() < 1e-3


def test_depth_is_bounded_and_picture_is_in_range(scenes):
    _, rgb, depth = scenes
    assert depth.dtype == torch.float32
    assert rgb.shape == (SCENES, 3, SIZE, SIZE)
    assert depth.min() > 0.8
    assert depth.max() < 10
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    assert 0.3 < rgb.mean() < 0.75


def test_scene_depends_on_seed_and_index_alone(scenes):
    layout, rgb, depth = scenes
    again = sample_layouts(3, seed=11, start=20)
    for name in ("pitch", "position", "hsv", "exists", "phrase", "bounds"):
        assert torch.equal(getattr(again, name), getattr(layout[20:23], name))
    picture, distance = render(again, SIZE)
    torch.testing.assert_close(distance, depth[20:23], atol=1e-5, rtol=0)
    assert (picture - rgb[20:23]).abs().mean() < 1e-5
    assert captions(again) == captions(layout)[20:23]
    assert not torch.equal(sample_layouts(3, seed=12).pitch, layout.pitch[:3])


def test_empty_batch():
    rgb, depth = render(sample_layouts(0, seed=0), 16)
    assert rgb.shape == (0, 3, 16, 16)
    assert depth.shape == (0, 16, 16)


def test_supersampling_keeps_depth_exact(scenes):
    layout, _, depth = scenes
    assert torch.equal(render(layout[:4], SIZE, supersample=1)[1], depth[:4])


def test_objects_are_in_view_apart_and_of_their_size():
    layout = sample_layouts(2000, seed=3)
    count = layout.exists.sum(dim=1)
    shares = count.bincount(minlength=4) / len(layout)
    assert count.min() >= 1
    assert torch.allclose(shares[1:], torch.tensor([0.45, 0.35, 0.20]), atol=0.06)
    bounds = layout.bounds[layout.exists]
    assert (bounds.abs().amax(dim=-1) > 1).float().mean() < 0.01
    tall = (bounds[:, 3] - bounds[:, 1]) / 2
    large = layout.large[layout.exists]
    assert tall[~large].quantile(0.95) < tall[large].quantile(0.05)
    x, z = layout.position.unbind(-1)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        both = layout.exists[:, one] & layout.exists[:, other]
        apart = torch.hypot(x[:, one] - x[:, other], z[:, one] - z[:, other])
        assert (apart > layout.radius[:, one] + layout.radius[:, other])[both].all()


def test_pixels_of_an_object_lie_inside_its_bounds(scenes):
    layout, rgb, _ = scenes
    for row, slot in layout.exists.nonzero().tolist():
        mask = mask_of(rgb[row], COLORS[int(layout.color[row, slot])])
        y, x = (2 * (axis + 0.5) / SIZE - 1 for axis in mask.nonzero().unbind(1))
        assert len(x) > 0, (row, slot)
        left, top, right, bottom = layout.bounds[row, slot].tolist()
        slack = 3 / SIZE
        inside = (x > left - slack) & (x < right + slack) & (y > top - slack) & (y < bottom + slack)
        assert inside.float().mean() > 0.97, (row, slot)


def test_object_color_is_the_dominant_saturated_hue(scenes):
    layout, rgb, _ = scenes
    for row in (layout.exists.sum(dim=1) == 1).nonzero()[:, 0].tolist():
        _, saturation = hue_saturation(rgb[row])
        saturated = saturation > 0.55
        mask = mask_of(rgb[row], COLORS[int(layout.color[row, 0])])
        assert saturated.sum() > 15
        assert mask.sum() > 0.9 * saturated.sum()


def test_captions_name_exactly_the_objects_in_known_words():
    layout = sample_layouts(1000, seed=5)
    names = {**{shape: shape for shape in SHAPES}, **{word: shape for shape, word in SHAPE_SYNONYMS.items()}}
    seen = set()
    for row, caption in enumerate(captions(layout)):
        words = caption.split()
        seen.update(words)
        assert 2 <= len(words) <= 16
        found = re.findall(rf"({'|'.join(COLORS)}) ({'|'.join(names)})\b", caption)
        slots = layout.exists[row].nonzero()[:, 0]
        present = [(COLORS[layout.color[row, s]], SHAPES[layout.shape[row, s]]) for s in slots]
        assert sorted((color, names[shape]) for color, shape in found) == sorted(present)
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption)
    assert seen == set(VOCABULARY)
    assert len(VOCABULARY) < 100


def test_relations_hold_in_the_picture():
    layout = sample_layouts(160, seed=6)
    texts = captions(layout)
    any_color = "|".join(COLORS)
    pattern = re.compile(rf"({any_color}) \w+ (to the left of|to the right of|in front of|behind) .*?({any_color})")
    rows = [row for row, text in enumerate(texts) if pattern.search(text)]
    rgb, depth = render(layout[torch.tensor(rows)], SIZE)
    checked = set()
    for picture, distance, row in zip(rgb, depth, rows, strict=True):
        first, relation, second = pattern.search(texts[row]).groups()
        one, other = mask_of(picture, first), mask_of(picture, second)
        if relation.startswith("to the"):
            columns = [mask.nonzero()[:, 1].float().mean() for mask in (one, other)]
            assert (columns[0] < columns[1]) == (relation == "to the left of"), texts[row]
        else:
            nearest = [distance[mask].median() for mask in (one, other)]
            assert (nearest[0] < nearest[1]) == (relation == "in front of"), texts[row]
        checked.add(relation)
    assert len(checked) == 4


def test_dataset_is_written_resumed_and_read(tmp_path):
    paths = write_dataset(tmp_path, 5, seed=2, size=16, shard_size=2, progress=False)
    assert [path.name for path in paths] == [f"scenes-0000{i}.safetensors" for i in range(3)]
    kept = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    write_dataset(tmp_path, 5, seed=2, size=16, shard_size=2, progress=False)
    assert paths[0].stat().st_mtime_ns == kept
    shards = list(read_shards(tmp_path))
    assert [len(shard.captions) for shard in shards] == [2, 2, 1]
    layout = sample_layouts(5, seed=2)
    rgb, depth = render(layout, 16)
    assert [text for shard in shards for text in shard.captions] == captions(layout)
    stored = torch.cat([shard.rgb for shard in shards])
    assert stored.dtype == torch.uint8
    assert (stored.float() / 255 - rgb).abs().mean() < 2e-3
    torch.testing.assert_close(torch.cat([s.depth for s in shards]).float(), depth, atol=5e-3, rtol=1e-3)
    assert not list(tmp_path.glob("*.partial"))


def test_dataset_refuses_a_folder_of_other_scenes(tmp_path):
    write_dataset(tmp_path, 1, seed=2, size=16, progress=False)
    with pytest.raises(ValueError, match="holds other scenes"):
        write_dataset(tmp_path, 1, seed=3, size=16, progress=False)


def test_reading_an_empty_folder_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"no \.safetensors shards"):
        list(read_shards(tmp_path))


@pytest.mark.parametrize("arguments", [(-1, 0), (1, -1)])
def test_negative_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must not be negative"):
        sample_layouts(*arguments)
