"""The sampler beyond the golden rollouts: seeds, frozen streams, callbacks, refusals, and the one-schedule identity."""

from pathlib import Path

import pytest
import torch

from mforce.mforce_core import load_model, rollout_times, sample
from mforce.mforce_core.sampling.denoiser import Denoiser
from mforce.mforce_core.sampling.guidance import Guidance
from mforce.mforce_core.sampling.noise import draw_noise
from mforce.mforce_core.sampling.path import PURE_NOISE
from mforce.mforce_core.sampling.schedule import Levels

GOLDEN = Path(__file__).parent / "golden" / "v2"
GRID = (2, 3)


@pytest.fixture(scope="module")
def model():
    return load_model(GOLDEN)


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    return torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(1))


def test_a_seed_is_its_noise(model, text) -> None:
    noise = draw_noise((2, 6, 32), (2, 6, 64), 7)
    by_seed = sample(model, text, GRID, steps=2, cfg=1, seed=7)
    by_noise = sample(model, text, GRID, steps=2, cfg=1, noise=noise)
    other = sample(model, text, GRID, steps=2, cfg=1, seed=8)
    for a, b, c in zip(by_seed, by_noise, other, strict=True):
        assert torch.equal(a, b)
        assert not torch.allclose(a, c)


def test_a_picture_with_a_seed_of_its_own_has_the_same_noise_in_every_batch() -> None:
    together = draw_noise((2, 6, 32), (2, 6, 64), [7, 8])
    for row, seed in enumerate((7, 8)):
        alone = draw_noise((1, 6, 32), (1, 6, 64), seed)
        assert all(torch.equal(many[row : row + 1], one) for many, one in zip(together, alone, strict=True))


@pytest.mark.parametrize("log2_alpha", [-30.0, -14.0, 0.0, 14.0, 30.0])
def test_every_tilt_leads_from_noise_to_clean(log2_alpha: float) -> None:
    t_rgb, t_depth = rollout_times(8, log2_alpha=log2_alpha)
    assert PURE_NOISE < float(t_depth[0]) <= 1
    assert float(t_depth[-1]) == 0
    assert (t_depth.diff() <= 0).all()
    inside = t_rgb[1:-1].double()  # odds are multiplied
    odds = (inside / (1 - inside)) * 2**log2_alpha
    torch.testing.assert_close(t_depth[1:-1].double(), odds / (1 + odds), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("mode", "frozen"), [("i2d", 0), ("d2i", 1)])
def test_the_frozen_stream_comes_back_unchanged(model, text, mode: str, frozen: int) -> None:
    clean = torch.randn(2, 6, 32), torch.randn(2, 6, 64)
    out = sample(model, text, GRID, mode=mode, steps=2, cfg=1, rgb=clean[0], depth=clean[1])
    assert torch.equal(out[frozen], clean[frozen])
    assert not torch.allclose(out[1 - frozen], clean[1 - frozen])


def test_moebius_tilt_is_an_ordinary_flow_on_the_rgb_schedule(model, text) -> None:
    """z = y * s / f(s) with the x-prediction d0 / A takes the same Euler steps as y on its own times."""
    a, steps = 3.0, 6
    alpha = 2**a
    s, _ = rollout_times(steps)
    noise = draw_noise((2, 6, 32), (2, 6, 64), 0)
    _, depth = sample(model, text, GRID, steps=steps, cfg=1, log2_alpha=a, noise=noise)
    rgb, z = noise[0].double(), noise[1].double()
    denoise = Denoiser(model, text, None, GRID, Guidance(1.0))
    for now, after in zip(s[:-1].tolist(), s[1:].tolist(), strict=True):
        t_depth = alpha * now / (1 + (alpha - 1) * now)
        y = z * t_depth / now
        modulations = model.modulations(torch.tensor([now]), torch.tensor([t_depth]))
        with torch.no_grad():
            prediction = denoise(rgb, y, modulations, levels=Levels(now, t_depth), level=now)
        rgb = rgb + (after - now) * prediction.rgb_velocity
        z = z + (after - now) * (z - prediction.depth_x0 / alpha) / now
    final = z * alpha  # s / f(s) -> 1 / A at s = 0
    assert float((final - depth).norm() / depth.norm()) < 1e-4


def test_callback_sees_every_step_and_can_cancel(model, text) -> None:
    seen = []

    def watch(step: int, steps: int, rgb: torch.Tensor, depth_x0: torch.Tensor) -> None:
        seen.append((step, steps, tuple(rgb.shape), tuple(depth_x0.shape)))
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(model, text, GRID, steps=5, cfg=1, callback=watch)
    assert seen == [(1, 5, (2, 6, 32), (2, 6, 64)), (2, 5, (2, 6, 32), (2, 6, 64))]


@pytest.mark.parametrize(("mode", "frozen"), [("i2d", 0), ("d2i", 1)])
def test_the_callback_is_shown_the_given_stream_and_the_state_of_the_other(model, text, mode: str, frozen: int) -> None:
    clean, seen = (torch.randn(2, 6, 32), torch.randn(2, 6, 64)), []
    out = sample(
        model, text, GRID, mode=mode, steps=2, cfg=1, rgb=clean[0], depth=clean[1],
        callback=lambda step, steps, *streams: seen.append(streams),
    )  # fmt: skip
    assert all(torch.equal(streams[frozen], clean[frozen]) for streams in seen)
    assert not torch.allclose(seen[0][1 - frozen], seen[1][1 - frozen])
    # The last step ends at the clean value that was predicted.
    torch.testing.assert_close(seen[-1][1 - frozen], out[1 - frozen], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"mode": "text"}, "mode must be one of joint, i2d, d2i"),
        ({"mode": "i2d"}, "i2d needs the clean rgb tokens"),
        ({"mode": "d2i"}, "d2i needs the clean depth tokens"),
        ({"cfg": 4.0}, "needs null_text"),
        ({"cfg": float("nan")}, "cfg must be a finite number"),
        ({"log2_alpha": float("inf")}, "log2_alpha must lie in"),
        ({"noise": (torch.zeros(2, 6, 31), torch.zeros(2, 6, 64))}, r"rgb tokens must be \(2, 6, 32\)"),
    ],
)
def test_refusals(model, text, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(model, text, GRID, **{"cfg": 1.0, "steps": 2} | options)
