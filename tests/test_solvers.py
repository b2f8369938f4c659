"""Solvers on problems whose solution is known, each stream on levels of its own.

For Gaussian data N(m, s^2) the best prediction of the clean value is linear in the state, and the flow keeps a state's
distance from the mean in standard deviations: x(t) = (1 - t) m + std(t) z with std(t)^2 = (1 - t)^2 s^2 + t^2.
"""

import math

import pytest
import torch
from hypothesis import given as any_of
from hypothesis import settings
from hypothesis import strategies as st

from mforce.mforce_core import NoisePath, PathSpec
from mforce.mforce_core.release import SAMPLERS
from mforce.mforce_core.sampling.guidance import Prediction
from mforce.mforce_core.sampling.integrate import Given, integrate
from mforce.mforce_core.sampling.solvers import SOLVERS, Streams, add_noise

MEAN, SPREAD = {"rgb": 0.6, "depth": -1.2}, {"rgb": 0.5, "depth": 0.3}
MIXED = "shifts mu=0.4 sigma=1.2 depth_mu=-0.5 depth_sigma=0.9"


def deviation(stream: str, t: float) -> float:
    return math.hypot((1 - t) * SPREAD[stream], t)


def gaussian(path: NoisePath):
    """The best predictions for Gaussian data along a path."""

    def predict(state: Streams, number: int) -> Prediction:
        level = path.levels[number]
        clean = {
            name: MEAN[name] + SPREAD[name] ** 2 * (1 - t) / deviation(name, t) ** 2 * (x - (1 - t) * MEAN[name])
            for name, x, t in zip(("rgb", "depth"), state, level, strict=True)
        }
        return Prediction((state.rgb - clean["rgb"]) / level.rgb, clean["depth"])

    return predict


def exact(noise: Streams, path: NoisePath, number: int) -> Streams:
    """Where the flow has brought noise to at the levels of that number."""
    streams = zip(("rgb", "depth"), noise, path.levels[number], strict=True)
    return Streams(*((1 - t) * MEAN[name] + deviation(name, t) * z for name, z, t in streams))


def noise(count: int = 64, dtype: torch.dtype = torch.float64) -> Streams:
    generator = torch.Generator().manual_seed(0)
    return Streams(*(torch.randn(1, count, 1, generator=generator, dtype=dtype) for _ in range(2)))


def errors(solver: str, steps: int) -> list[float]:
    """Relative errors of the streams at the end of a path, each on levels of its own.

    Between levels inside the scale: at its ends, steps are first order in their length.
    """
    levels = torch.linspace(0.9, 0.3, steps + 1, dtype=torch.float64)
    path = NoisePath(levels, levels.square())
    found = integrate(gaussian(path), exact(noise(), path, 0), path, solver=solver)
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, exact(noise(), path, -1), strict=True)]


def test_the_names_of_the_solvers_are_those_that_the_command_line_lists() -> None:
    assert tuple(SOLVERS) == SAMPLERS


@pytest.mark.parametrize("solver", SAMPLERS)
def test_a_prediction_that_does_not_change_is_reached_whatever_the_steps(solver: str) -> None:
    path = PathSpec.parse(MIXED).build(5)
    start, clean = noise(), Streams(*torch.tensor([0.7, -0.3], dtype=torch.float64))

    def predict(state: Streams, number: int) -> Prediction:
        level = path.levels[number]
        return Prediction((state.rgb - clean.rgb) / level.rgb, clean.depth.expand_as(state.depth))

    # Not the release's Euler on depth, whose floor of 0.05 keeps a rest of the noise: here the last step is above it.
    assert path.depth[-2] > 0.05
    for found, wanted in zip(integrate(predict, start, path, solver=solver), clean, strict=True):
        torch.testing.assert_close(found, wanted.expand_as(found))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_the_error_falls_with_the_order_of_the_solver(solver: str, order: int) -> None:
    for before, after in zip(errors(solver, 64), errors(solver, 256), strict=True):
        assert math.log(before / after, 4) == pytest.approx(order, abs=0.2)


def test_second_order_needs_fewer_predictions_than_euler() -> None:
    for one, few in ((errors("euler", 50), errors("dpmpp_2m", 20)), (errors("euler", 50), errors("heun", 10))):
        assert all(second < first for first, second in zip(one, few, strict=True))


def test_multistep_is_the_one_of_diffusers() -> None:
    """Step by step, on the RGB stream from just below noise; theirs has no step from t = 1, where its SNR is 0."""
    schedulers = pytest.importorskip("diffusers.schedulers.scheduling_dpmsolver_multistep")
    levels = PathSpec("tilt", sigma=1.7).build(12).rgb[1:]
    path, start = NoisePath(levels, levels), noise(dtype=torch.float32)
    predict = gaussian(path)
    theirs = schedulers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    theirs.set_timesteps(path.steps)
    theirs.sigmas, theirs.timesteps = torch.tensor(levels), 1000 * torch.tensor(levels[:-1])
    state = start.rgb
    for number, timestep in enumerate(theirs.timesteps):
        velocity = predict(Streams(state, start.depth), number).rgb_velocity
        state = theirs.step(velocity, timestep, state).prev_sample
    torch.testing.assert_close(integrate(predict, start, path, solver="dpmpp_2m").rgb, state, rtol=1e-4, atol=1e-5)


def test_noise_anew_in_every_step_keeps_the_distribution() -> None:
    path = PathSpec.parse(MIXED).build(200)
    start = noise(40_000)
    found = integrate(gaussian(path), start, path, solver="euler_ancestral", fresh=_drawing())
    for name, values, before in zip(("rgb", "depth"), found, start, strict=True):
        assert float(values.mean()) == pytest.approx(MEAN[name], abs=0.02)
        assert float(values.std()) == pytest.approx(SPREAD[name], rel=0.05)
        # A deterministic solver would keep every state's place among the others.
        assert float(torch.corrcoef(torch.stack((values.flatten(), before.flatten())))[0, 1]) < 0.5


@pytest.mark.parametrize("now", [0.2, 0.5, 0.9])
def test_a_short_ancestral_step_has_the_noise_of_the_diffusion_process(now: float) -> None:
    """The process whose marginals are the flow's forgets by a = (1 - t) / (1 - s) from s to t. Back from t, with the
    clean value known, its variance is s^2 (t^2 - a^2 s^2) / t^2 (as in Ho et al., arXiv 2006.11239)."""
    path = NoisePath((now, 0.999 * now), (now, 0.999 * now))
    nothing = torch.zeros(1, 1, 1, dtype=torch.float64)
    found = integrate(
        lambda state, number: Prediction(nothing, nothing),
        Streams(nothing, nothing),
        path,
        solver="euler_ancestral",
        fresh=torch.ones_like,
    )
    t, s = path.rgb
    forgets = (1 - t) / (1 - s)
    variance = s**2 * (t**2 - (forgets * s) ** 2) / t**2
    assert [float(values.square()) for values in found] == pytest.approx([variance] * 2, rel=0.01)


def _drawing():
    generator = torch.Generator().manual_seed(1)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


@any_of(now=st.floats(0, 0.95), share=st.floats(0.01, 1))
@settings(max_examples=50, deadline=None)
def test_adding_noise_reaches_the_level(now: float, share: float) -> None:
    after = now + share * (1 - now)
    generator = torch.Generator().manual_seed(2)
    first, second = torch.randn(2, 100_000, generator=generator, dtype=torch.float64)
    clean = 1.7
    state = add_noise((1 - now) * clean + now * first, second, now, after)
    assert float(state.mean()) == pytest.approx((1 - after) * clean, abs=0.02)
    assert float(state.std()) == pytest.approx(after, rel=0.02)


def test_a_restart_with_a_solver_keeps_the_distribution() -> None:
    path = PathSpec.parse(MIXED + " restart=1,0.5,2").build(60)
    found = integrate(gaussian(path), noise(40_000), path, solver="dpmpp_2m", fresh=_drawing())
    for name, values in zip(("rgb", "depth"), found, strict=True):
        assert float(values.mean()) == pytest.approx(MEAN[name], abs=0.02)
        assert float(values.std()) == pytest.approx(SPREAD[name], rel=0.03)


def test_multistep_forgets_what_it_knew_before_noise_was_added() -> None:
    """Back to a level below that of the last prediction: what comes after is what a rollout from there makes."""
    path = NoisePath((0.5, 0.2, 0.4, 0.3, 0.1), (0.5, 0.2, 0.4, 0.3, 0.1))
    predict, states = gaussian(path), []
    integrate(
        predict, noise(), path, solver="dpmpp_2m", fresh=_drawing(), callback=lambda *now: states.append(now[2].clone())
    )
    rest = NoisePath(path.rgb[2:], path.depth[2:])
    again = integrate(gaussian(rest), Streams(states[1], states[1]), rest, solver="dpmpp_2m")
    torch.testing.assert_close(states[-1], again.rgb)


def test_eulers_velocity_of_depth_has_the_floor_of_the_release() -> None:
    """Near the end, where the noise level is below 0.05, it is divided by that."""
    depth, clean = torch.tensor([[[1.5]]]), torch.tensor([[[0.5]]])
    predicted = Prediction(torch.zeros_like(depth), clean)
    for now, wanted in ((0.1, 0.5), (0.05, 0.5), (0.02, 1.5 - 0.02 / 0.05)):
        path = NoisePath((0.0, 0.0), (now, 0.0))
        found = integrate(lambda state, number: predicted, Streams(depth, depth), path)
        torch.testing.assert_close(found.depth, torch.tensor([[[wanted]]]))


def test_the_callback_is_shown_a_given_stream_at_its_level_after_the_step() -> None:
    path = NoisePath((0.8, 0.5, 0.2), (1.0, 0.6, 0.0))
    start, clean, shown = noise(), torch.full((1, 64, 1), 0.4, dtype=torch.float64), []
    integrate(gaussian(path), start, path, given=Given(rgb=clean), callback=lambda *step: shown.append(step[2]))
    for level, rgb in zip(path.rgb[1:], shown, strict=True):
        torch.testing.assert_close(rgb, (1 - level) * clean + level * start.rgb)


@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m"])
def test_a_stream_that_waits_or_is_given_does_not_disturb_the_other(solver: str) -> None:
    path = PathSpec.parse("finish rgb_by=0.5").build(24)
    start = noise()
    found = integrate(gaussian_or_waiting(path), start, path, solver=solver)
    alone = NoisePath(path.rgb[:13], path.rgb[:13])
    wanted = integrate(gaussian(alone), start, alone, solver=solver)
    torch.testing.assert_close(found.rgb, wanted.rgb)
    clean = torch.full_like(start.depth, 0.4)
    followed = PathSpec.parse("d2i log2_alpha=-3").build(24)
    kept = integrate(gaussian_or_waiting(followed), start, followed, solver=solver, given=Given(depth=clean))
    assert torch.equal(kept.depth, clean)
    diagonal = NoisePath(followed.rgb, followed.rgb)
    torch.testing.assert_close(kept.rgb, integrate(gaussian(diagonal), start, diagonal, solver=solver).rgb)


def gaussian_or_waiting(path: NoisePath):
    """As :func:`gaussian`, with any velocity for RGB that is clean already."""
    levels = [max(level, 1e-3) for level in path.rgb]
    return gaussian(NoisePath(levels, path.depth))
