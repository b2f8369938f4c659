"""Robust fits against a linear program, ensembles against Marigold's, measures by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog

from mforce.evaluation.depth.alignment import ALIGNMENTS, Limits, align, formula, least_squares
from mforce.evaluation.depth.boundaries import depth_pro_f1, moge_f1
from mforce.evaluation.depth.ensemble import ensemble
from mforce.evaluation.depth.least_deviations import (
    fit_scale,
    fit_scale_and_shift,
    fit_scale_and_shift_as_moge,
)
from mforce.evaluation.depth.metrics import depth_errors, pixel_errors

DATA = Path(__file__).parent / "data" / "depth_harnesses"


def program(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """The least sum of ``weight |s x + t - y|`` by a solver of linear programs."""
    count = len(x)
    identity = np.eye(count)
    lines = np.stack([x, np.ones(count)], 1)
    found = linprog(
        np.concatenate([[0, 0], weight]),
        A_ub=np.block([[lines, -identity], [-lines, -identity]]),
        b_ub=np.concatenate([y, -y]),
        bounds=[(None, None)] * 2 + [(0, None)] * count,
    )
    return float(found.fun)


@pytest.mark.parametrize("levels", [None, 8, 3], ids=["all differ", "ties", "few levels"])
@pytest.mark.parametrize("seed", range(4))
def test_the_fit_is_the_best(levels: int | None, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.lognormal(0, 0.7, 80)
    y = np.abs(2 * x + 0.3 + random.standard_t(2, 80) * 0.3) + 0.05
    if levels is not None:
        x, y = np.ceil(x * levels) / levels, np.ceil(y * levels) / levels
    weight = 1 / y
    scale, shift = fit_scale_and_shift(x, y, weight)
    assert weight @ np.abs(scale * x + shift - y) == pytest.approx(program(x, y, weight), rel=1e-9)
    if levels is None:
        assert fit_scale_and_shift_as_moge(x, y, weight) == (scale, shift)


def test_scales_may_be_negative_and_outliers_do_not_count() -> None:
    x = np.arange(1.0, 12.0)
    y = 30 - 2 * x
    y[3] = 500
    assert fit_scale_and_shift(x, y, np.ones(11)) == pytest.approx((-2, 30))
    assert fit_scale(x, -0.5 * x, x) == -0.5
    assert fit_scale_and_shift(np.ones(3), np.array([1.0, 2.0, 9.0]), np.ones(3)) == (0.0, 2.0)
    assert fit_scale(np.zeros(2), np.ones(2), np.ones(2)) == 0.0


def test_least_squares_where_nothing_varies() -> None:
    x, y = np.full(5, 2.0), np.arange(5.0)
    expected = np.linalg.lstsq(np.stack([x, np.ones(5)], 1), y, rcond=None)[0]
    assert least_squares(x, y) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("name", sorted(set(ALIGNMENTS) - {"none"}))
def test_alignments_undo_what_they_are_invariant_to(name: str) -> None:
    random = np.random.default_rng(0)
    truth = random.uniform(1, 9, (70, 90))
    mask = random.random(truth.shape) < 0.7
    kind = ALIGNMENTS[name].wants
    prediction = (1 / truth if kind == "disparity" else truth) * 0.37
    if name not in ("median", "scale"):
        prediction = prediction + 0.11
    aligned = align(name, prediction, truth, mask, Limits(0.0, 100.0), kind)
    np.testing.assert_allclose(aligned[mask], truth[mask], rtol=1e-9)


def test_depth_alignments_refuse_disparity() -> None:
    with pytest.raises(ValueError, match="disparity"):
        align("affine-depth", np.ones((4, 4)), np.ones((4, 4)), np.ones((4, 4), bool), Limits(), "disparity")
    with pytest.raises(ValueError, match="fewer than two"):
        align("scale", np.full((4, 4), np.nan), np.ones((4, 4)), np.ones((4, 4), bool), Limits(), "depth")


def test_errors_by_hand() -> None:
    truth = np.array([[1.0, 2.0, 4.0, 5.0]])
    aligned = np.array([[1.1, 1.0, np.nan, 77.0]])
    found = depth_errors(aligned, truth, np.array([[True, True, True, False]]))
    assert found["absrel"] == pytest.approx((0.1 + 0.5 + 1.0) / 3)
    assert found["delta1"] == pytest.approx(1 / 3)
    assert found["delta3"] == pytest.approx(1 / 3)  # 2 is above 1.25 ** 3
    assert found["rmse"] == pytest.approx(math.sqrt((0.1**2 + 1) / 2))
    assert found["log10"] == pytest.approx((math.log10(1.1) + math.log10(2)) / 2)


def test_negative_depth_is_a_hit_in_moges_deltas_alone() -> None:
    truth, aligned = np.array([1.0, 2.0, 3.0, 4.0]), np.array([-1.0, 2.0, 0.0, 40.0])
    assert pixel_errors(aligned, truth)["delta1"] == 1 / 4
    assert pixel_errors(aligned, truth, negative_hits=True)["delta1"] == 2 / 4  # 1 / 0 is no hit there either


def test_reports_say_what_was_clipped() -> None:
    assert "not clipped" in formula("least-square", Limits())
    assert "clipped to 0.001..10" in formula("least-square-disparity", Limits(1e-3, 10.0))
    assert "clipped to 1e-05 and more" in formula("least-square", Limits(1e-5, np.inf))
    assert "clip" not in formula("affine-depth", Limits(1e-3, 10.0))


def test_least_squares_depth_is_clipped_as_marigold_does() -> None:
    """First to the limits of the data set, then to what is above zero."""
    truth, mask = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[True, True, True, False]])
    prediction = np.array([[1.0, 2.0, 3.0, -7.0]])
    for limits, last in ((Limits(), 1e-6), (Limits(low=0.5), 0.5), (Limits(high=2.5), 1e-6)):
        found = align("least-square", prediction, truth, mask, limits, "depth")
        wanted = np.minimum([[1.0, 2.0, 3.0, last]], limits.high)
        np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_the_median_is_that_of_the_ratios() -> None:
    truth, prediction = np.array([[1.0, 6.0, 4.0]]), np.array([[1.0, 2.0, 8.0]])
    found = align("median", prediction, truth, np.ones((1, 3), bool), Limits(), "depth")
    np.testing.assert_allclose(found, prediction)  # ratios 1, 3 and a half; the ratio of the medians is 2


def test_disparity_that_is_nowhere_positive_is_refused() -> None:
    truth, mask = np.full((8, 8), 2.0), np.ones((8, 8), bool)
    with pytest.raises(ValueError, match="positive disparity"):
        align("least-square-disparity", np.full((8, 8), -1.0), truth, mask, Limits(), "disparity")


def test_boundaries_by_hand() -> None:
    truth = np.where(np.arange(24) < 12, 1.0, 2.0) * np.ones((16, 1))
    everywhere = np.ones(truth.shape, bool)
    assert moge_f1(truth, truth, everywhere) == pytest.approx(1)
    # Depth Pro's mean over directions gives no credit where the truth has no edge: 1 of 4 directions here.
    assert depth_pro_f1(truth, truth, everywhere) == pytest.approx(0.25)
    moved = np.roll(truth, 3, 1)
    moved[:, :3] = 1
    assert moge_f1(moved, truth, everywhere) == depth_pro_f1(moved, truth, everywhere) == 0
    unseen = everywhere.copy()
    unseen[:, 11] = False  # the edge has no measurement on one side
    assert moge_f1(truth, truth, unseen) == 0


@pytest.mark.parametrize("harness", ["diffusers", "marigold"])
@pytest.mark.parametrize("count", [4, 5])
def test_ensembles_are_marigolds(harness: str, count: int) -> None:
    settings = {"iterations": 50, "tolerance": 1e-6} if harness == "marigold" else {}
    with np.load(DATA / "ensembles.npz") as data:
        maps, recorded = data["maps"][:count], data[f"{harness}_{count}"]
    np.testing.assert_allclose(ensemble(maps, **settings), recorded, rtol=0, atol=1e-6)


def test_ensembles_leave_out_pixels_that_a_map_lacks() -> None:
    maps = np.random.default_rng(0).uniform(1, 2, (3, 8, 8)).astype(np.float32)
    maps[1, 2, 3] = np.nan
    found = ensemble(maps)
    assert np.isnan(found).sum() == 1
    assert np.isnan(found[2, 3])
    np.testing.assert_array_equal(ensemble(maps[:1]), maps[0])
    with pytest.raises(ValueError, match="no pixel"):
        ensemble(np.full((2, 4, 4), np.nan))
