"""Paths through the square of noise levels: their makers, and that a rollout follows them."""

import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mforce.mforce_core import NoisePath, PathSpec, load_model, rollout_times, sample
from mforce.mforce_core.model.config import Schedule

GOLDEN = Path(__file__).parent / "golden" / "v2"
GRID = (2, 3)
MIXED = Schedule(rgb_shift_mu=0.3, depth_shift_mu=-0.7, rgb_shift_sigma=1.5, depth_shift_sigma=0.8)


@pytest.fixture(scope="module")
def model():
    return load_model(GOLDEN)


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    return torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def content() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {"rgb": torch.randn(2, 6, 32, generator=generator), "depth": torch.rand(2, 6, 64, generator=generator) * 2}


def assert_same(ours, theirs) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


# Makers


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("tilt", {"log2_alpha": 5.0}),
        ("tilt log2_alpha=-3", {"log2_alpha": -3.0}),
        ("shifts mu=0.3 sigma=1.5 depth_mu=-0.7 depth_sigma=0.8", {"schedule": MIXED}),
        ("i2d", {"mode": "i2d"}),
        ("d2i mu=0.3 sigma=1.5", {"mode": "d2i", "schedule": MIXED}),
    ],
)
def test_the_paths_of_the_release_are_its_own_to_the_bit(text: str, options: dict) -> None:
    assert_same(PathSpec.parse(text).build(11).tensors(), rollout_times(11, **options))


def test_a_line_between_two_points_is_the_diagonal_of_the_release() -> None:
    assert_same(PathSpec.parse("points 1,1 0,0").build(50).tensors(), rollout_times(50, log2_alpha=None))


def test_points_are_passed_and_spaced_along_the_line() -> None:
    path = PathSpec("points", points=((1, 1), (0.2, 1), (0.2, 0), (0, 0)), mu=0.0, sigma=1.0).build(20)
    lengths = torch.stack(path.tensors(), dim=1).diff(dim=0).abs().sum(1)  # the lines run along the axes
    torch.testing.assert_close(lengths, torch.full((20,), 0.1))
    assert path.levels[8] == pytest.approx((0.2, 1.0), abs=1e-6)
    assert path.levels[18] == pytest.approx((0.2, 0.0), abs=1e-6)
    assert path.levels[20] == (0, 0)


def test_rgb_is_finished_by_its_share_of_the_steps() -> None:
    path = PathSpec("finish", rgb_by=0.6).build(10)
    assert [level == 0 for level in path.rgb] == [False] * 6 + [True] * 5
    torch.testing.assert_close(path.tensors()[0][:7], rollout_times(6)[0])
    assert path.depth == NoisePath(*rollout_times(10)).depth


@pytest.mark.parametrize("steps", range(2, 31))
def test_a_stream_that_is_finished_early_is_clean_to_the_bit(steps: int) -> None:
    for done in range(1, steps):
        path = PathSpec("finish", depth_by=done / steps).build(steps)
        assert path.depth[done - 1] > 0
        assert path.depth[done:] == (0.0,) * (steps + 1 - done)


def test_a_path_that_starts_below_noise_is_what_is_left_of_the_whole() -> None:
    levels = PathSpec("points", points=((1, 1), (0, 0)), start_rgb=0.5, start_depth=0.5).build(8).tensors()
    end = torch.linspace(float(_unshifted(0.5)), 0, 9)
    shifted = PathSpec("shifts").build(1000).tensors()[0]
    wanted = torch.from_numpy(_interpolated(end, shifted))
    for stream in levels:
        torch.testing.assert_close(stream, wanted, atol=1e-5, rtol=0)


def _unshifted(level: float) -> float:
    """u of shift(u) = level, solved by hand: logit(u) = logit(level) - mu."""
    return float(torch.sigmoid(torch.logit(torch.tensor(level)) - 1.1))


def _interpolated(u: torch.Tensor, shifted: torch.Tensor) -> np.ndarray:
    return np.interp(u.numpy(), np.linspace(0, 1, len(shifted)), shifted.flip(0).numpy()).astype("float32")


def test_a_stream_waits_at_its_start_until_the_path_comes_down_to_it() -> None:
    path = PathSpec("tilt", log2_alpha=-5, start_rgb=0.5).build(20)  # depth first
    assert path.rgb[0] == 0.5
    assert path.depth[0] == 1
    waiting = [number for number, level in enumerate(path.rgb) if level == 0.5]
    assert waiting == list(range(len(waiting)))
    assert len(waiting) > 5
    assert path.depth[waiting[-1]] < 0.1


def test_a_given_stream_does_not_make_the_other_wait() -> None:
    path = PathSpec("d2i", log2_alpha=-8, start_rgb=0.7).build(10)
    assert path.rgb[0] == pytest.approx(0.7, abs=1e-6)
    assert all(after < now for now, after in pairwise(path.rgb))
    assert path.depth[0] == pytest.approx(0.7 / 256 / (1 - 0.7 + 0.7 / 256), abs=1e-6)


def test_a_path_of_too_many_steps_is_refused_before_it_is_made() -> None:
    """1000 restarts of 1000 turns over 10,000 steps would be 80 GB of numbers."""
    spec = PathSpec("tilt", restarts=((1.0, 0.0, 1000),) * 1000)
    tracemalloc.start()
    with pytest.raises(ValueError, match="at most 10,000 steps"):
        spec.build(10_000)
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()
    assert PathSpec("tilt", restarts=((1.0, 0.0, 99),)).build(99).steps == 99 + 99 * 100
    with pytest.raises(ValueError, match="at most"):
        PathSpec("tilt", restarts=((1.0, 0.0, 100),)).build(100)


def test_restarts_go_back_to_the_levels_of_the_way() -> None:
    plain, path = (PathSpec("tilt", restarts=given).build(10) for given in (None, ((0.8, 0.5, 2),)))
    order = [0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7, 8, 5, 6, 7, 8, 9, 10]
    assert path.levels == [plain.levels[number] for number in order]


@pytest.mark.parametrize(
    "text",
    ["tilt restart=0.8,0.5,2", "points 1,1 0.3,0.9 0,0", "i2d log2_alpha=-5 start_depth=0.5", "levels 1,0 0.2,0 0.5,0"],
)
def test_a_specification_survives_json(text: str) -> None:
    spec = PathSpec.parse(text)
    assert PathSpec.parse(json.dumps(spec.to_dict())) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a path is of the kind"),
        ("spiral", "a path is of the kind"),
        ("i2d rgb_by=0.5", "the kind i2d has no rgb_by"),
        ("tilt angle=5", "a path has no angle"),
        ("tilt log2_alpha=31", "log2_alpha of a path must be a number from -30 to 30"),
        ("tilt log2_alpha=nan", "log2_alpha of a path must be"),
        ("tilt log2_alpha=much", "'much' in a path is not a number"),
        ("points", "needs points"),
        ("points 1,1", "two or more pairs"),
        ("points 1,1 0.5,0.5 0.6,0", "may not rise"),
        ("points 1,1 0,-1", "must lie in 0..1"),
        ("tilt restart=0.5,0.8,1", "a restart is"),
        ('{"kind": "tilt"', "not readable JSON"),
        ('{"kind": 3}', "a path needs a kind"),
        ("levels 1,1 0,0", "2 levels make 1 steps"),
    ],
)
def test_refusals_of_specifications(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PathSpec.parse(text).build(4)


@pytest.mark.parametrize(
    ("rgb", "depth", "message"),
    [
        ((1, 0), (1, 0.5, 0), "as many levels"),
        ((1,), (1,), "at least one step"),
        ((1, float("nan")), (1, 0), "level 1 of rgb on the path is nan"),
        ((1, 0), (1.5, 0), "level 0 of depth on the path is 1.5"),
        (torch.ones(2, 2), torch.ones(2), "must be a list of numbers"),
    ],
)
def test_refusals_of_paths(rgb, depth, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoisePath(rgb, depth)


# Rollouts


def test_independent_shifts_are_a_plain_euler_loop_per_stream(model, text) -> None:
    data = load_file(GOLDEN / "sample.safetensors")
    noise = data["joint_tilted.init_rgb"], data["joint_tilted.init_depth"]
    words, null_text = data["text"], data["null_text"]
    path = PathSpec.parse("shifts mu=0.3 sigma=1.5 depth_mu=-0.7 depth_sigma=0.8").build(7)
    grid = tuple(json.loads((GOLDEN / "config.json").read_text())["grid"])
    ours = sample(model, words, grid, cfg=3.0, null_text=null_text, noise=noise, path=path)

    rgb, depth = noise
    with torch.no_grad():
        for now, after in pairwise(path.levels):
            times = [torch.full((len(rgb),), level) for level in now]
            predicted = [model(rgb, depth, one.expand(len(rgb), -1, -1), *times, grid) for one in (words, null_text)]
            (velocity, clean), (velocity_0, clean_0) = predicted
            velocity, clean = velocity_0 + 3 * (velocity - velocity_0), clean_0 + 3 * (clean - clean_0)
            rgb = rgb + (after.rgb - now.rgb) * velocity
            depth = depth + (after.depth - now.depth) * (depth - clean) / max(now.depth, 0.05)
    for a, b in zip(ours, (rgb, depth), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("mode", "frozen"), [("i2d", 0), ("d2i", 1)])
def test_a_path_that_leaves_the_given_stream_clean_is_the_mode_itself(model, text, content, mode, frozen) -> None:
    usual = sample(model, text, GRID, mode=mode, steps=4, cfg=1, **content)
    along = sample(model, text, GRID, mode=mode, cfg=1, path=PathSpec(mode).build(4), **content)
    assert_same(usual, along)
    assert torch.equal(along[frozen], list(content.values())[frozen])


def test_a_given_stream_is_mixed_with_the_same_noise_at_its_own_levels(model, text, content, monkeypatch) -> None:
    path = PathSpec("d2i", log2_alpha=-2.0).build(5)
    seen = []
    model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    try:
        noise = torch.randn(2, 6, 32), torch.randn(2, 6, 64)
        _, depth = sample(model, text, GRID, mode="d2i", cfg=1, path=path, noise=noise, **content)
    finally:
        model._forward_pre_hooks.clear()
    assert torch.equal(depth, content["depth"])
    assert len(seen) == 5
    for state, level in zip(seen, path.depth, strict=False):
        torch.testing.assert_close(state, (1 - level) * content["depth"] + level * noise[1])


def test_both_streams_can_start_from_content(model, text, content) -> None:
    """A start near 0 keeps the content; and a path that only waits gives back its start, noise included."""
    noise = torch.randn(2, 6, 32), torch.randn(2, 6, 64)
    near = PathSpec("points", points=((1e-4, 1e-4), (0, 0))).build(2)
    for ours, clean in zip(
        sample(model, text, GRID, cfg=1, path=near, noise=noise, **content), content.values(), strict=True
    ):
        torch.testing.assert_close(ours, clean, atol=2e-2, rtol=0)
    waiting = NoisePath((0.3, 0.3), (0.6, 0.6))
    rgb, depth = sample(model, text, GRID, cfg=1, path=waiting, noise=noise, **content)
    torch.testing.assert_close(rgb, 0.7 * content["rgb"] + 0.3 * noise[0])
    torch.testing.assert_close(depth, 0.4 * content["depth"] + 0.6 * noise[1])


def test_a_part_of_a_path_can_be_taken_by_every_solver(model, text, content) -> None:
    """Where a path ends in noise, Heun's method asks the model about its last levels, too."""
    path = NoisePath((0.6, 0.5), (0.6, 0.5))
    longer = NoisePath((0.6, 0.5, 0.4), (0.6, 0.5, 0.4))
    states = []
    options = {"cfg": 1, "solver": "heun", "noise": (torch.randn(2, 6, 32), torch.randn(2, 6, 64)), **content}
    sample(model, text, GRID, path=longer, callback=lambda *now: states.append(now[2].clone()), **options)
    rgb, _ = sample(model, text, GRID, path=path, **options)
    torch.testing.assert_close(rgb, states[0], rtol=1e-5, atol=1e-5)


def test_steps_that_rise_call_no_model_and_add_the_right_noise(text, content) -> None:
    model = load_model(GOLDEN)
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    level, risen = 0.2, 0.7
    many = 4000
    data = {name: value[:1].expand(many, -1, -1)[:, :6] for name, value in content.items()}
    words = text[:1].expand(many, -1, -1)
    rgb, depth = sample(model, words, GRID, cfg=1, path=NoisePath((level, risen), (0.0, 1.0)), **data)
    assert not calls
    clean = data["rgb"][0] * (1 - risen)
    torch.testing.assert_close(rgb.mean(0), clean, atol=0.07, rtol=0)
    torch.testing.assert_close(rgb.std(0), torch.full_like(clean, risen), atol=0.05, rtol=0)
    torch.testing.assert_close(depth.std(0), torch.ones_like(depth[0]), atol=0.07, rtol=0)


def test_seeds_of_their_own_do_not_depend_on_the_batch(model, text) -> None:
    path = PathSpec("tilt", restarts=((1.0, 0.5, 1),)).build(4)
    both = sample(model, text[:1].expand(2, -1, -1), GRID, cfg=1, seed=[3, 8], path=path, solver="euler_ancestral")
    alone = sample(model, text[:1], GRID, cfg=1, seed=[8], path=path, solver="euler_ancestral")
    for a, b in zip(both, alone, strict=True):
        torch.testing.assert_close(a[1:], b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": PathSpec("tilt", start_rgb=0.5).build(2)}, "starts with rgb at noise level 0.5"),
        ({"path": NoisePath((0.5, 0.2), (0.5, 0.7))}, "step 1 of the path adds noise to one stream"),
        ({"solver": "magic"}, "the sampler must be one of euler"),
    ],
)
def test_refusals_of_rollouts(model, text, content, options: dict, message: str) -> None:
    given = content if "adds" in message else {}
    with pytest.raises(ValueError, match=message):
        sample(model, text, GRID, **{"cfg": 1.0, "steps": 2} | options, **given)
