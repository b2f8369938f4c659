"""Paths in a real ComfyUI: the release's rollouts, solvers, given streams, masks, batches; against `mforce_core`."""

import json
from pathlib import Path

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results():
    variants = [PACK / "tests" / "golden" / name for name in ("v1", "v2")]
    return json.loads(find_installation().run(HERE / "path_runs.py", PACK, *variants))


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_golden_rollouts_through_advanced_and_mf_sampler(results, variant):
    errors = results[variant]["golden"]
    assert len(errors) == 5 * 2 * 3  # rollouts, streams; advanced's two outputs and MF Sampler
    assert max(errors.values()) <= 1e-5, errors


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_every_solver_and_shape_equals_the_rollout_of_the_core(results, variant):
    errors = results[variant]["core"]
    assert {name.split(".")[0] for name in errors} == {"euler", "heun", "dpmpp_2m"}
    assert len(errors) == 3 * 6
    assert max(errors.values()) <= 2e-5, errors


def test_control_strength_of_the_sampler_is_the_path_of_that_name(results):
    assert results["v2"]["same as the path"] == {"i2d": True, "d2i": True}
    assert results["v2"]["full strength is the release's"]


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_control_strength_is_on_the_schedule_of_the_model(results, variant):
    assert results[variant]["schedule"] == {"i2d": 0, "d2i": 0}


def test_a_given_stream_comes_back_unchanged_whatever_its_path(results):
    assert results["v2"]["given unchanged"]


def test_pictures_of_a_batch_do_not_depend_on_each_other(results):
    assert results["v2"]["picture in a batch"] <= 2e-5


def test_one_noise_for_all_pictures_makes_them_equal(results):
    assert results["v2"]["same noise"] == [True, False]


def test_progress_counts_the_steps_of_the_path_and_of_refining(results):
    assert results["v2"]["progress"] == [6 + 4 + 6, 6 + 4 + 6]


def test_refining_takes_steps_and_solver_of_the_path(results):
    """Widgets that a path switches off decide nothing."""
    assert results["v2"]["refined"] <= 1e-6
    assert results["v2"]["refined by the path alone"]


def test_a_lora_acts_on_a_path(results):
    as_without_path, as_without_lora = results["v2"]["lora"]
    assert as_without_path <= 1e-5
    assert as_without_lora > 1e-2


def test_a_block_cache_is_exact_where_nothing_is_reused_and_acts_where_it_is(results):
    nothing_reused, reused = results["v2"]["block cache"]
    assert nothing_reused == 0
    assert 1e-3 < reused < 10


def test_previews_show_both_streams_of_every_step(results):
    found = results["v2"]["previews"]
    assert (found["steps"], found["total"]) == (list(range(6)), 6)
    assert found["last"] <= 1e-5
    assert found["depth"] <= 1e-5


def test_a_path_can_be_interrupted(results):
    assert results["v2"]["interrupted after"] == 1


def test_the_shape_for_text_is_advised_against_where_something_is_given(results):
    assert ["picture" in sentence for sentence in results["v2"]["advice"]] == [True, False]
    assert "choose the shape depth to image" in results["v2"]["advice"][1]


def test_holes_of_given_depth_are_the_same_noise_at_every_level(results):
    assert results["v2"]["holes"] <= 1e-6
    assert results["v2"]["holes unchanged"]


@pytest.mark.parametrize("conditioning", ["strict", "loose", "started from"])
def test_holes_of_given_depth_are_the_same_noise_in_cores_sampler(results, conditioning):
    found = results["v2"]["holes in advanced"][conditioning]
    assert found["equal"]
    assert found["seen"] > 1e-3  # the holes decide something
    assert found["record"]


def test_sigmas_can_be_split(results):
    assert results["v2"]["split"] <= 1e-5


def test_what_a_mask_keeps_is_kept(results):
    assert results["v2"]["masked"] == [True, False]


def test_problems_are_said(results):
    found = results["v2"]["messages"]
    assert "the path starts with the picture at noise level 0" in found["empty"]
    assert "denoise below 1 does not go with a path" in found["denoise"]
    assert "control_strength below 1 needs" in found["sampler"]
    assert "may not rise" in found["points"]
    assert "is not numbers" in found["words"]
    assert "needs a Modality Forcing model" in found["foreign"]
    assert (found["almost tilt"], found["almost points"]) == ("", "")
