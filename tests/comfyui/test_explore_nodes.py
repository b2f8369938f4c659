"""MF Extend View and MF Explore on nano, in a real ComfyUI."""

import json
from pathlib import Path

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results():
    return json.loads(find_installation().run(HERE / "explore_runs.py", PACK))


def test_every_input_and_output_has_a_tooltip(results):
    assert results["silent"] == []


def test_a_view_is_filled_in_both_streams_and_keeps_what_was_known(results):
    assert 0.02 < results["holes"] < 0.5
    assert results["known_color"] < 1e-5
    assert results["known_depth"] < 1e-4
    assert results["made_color"] > 1e-3
    assert results["made_everywhere"]
    assert results["same_camera"]
    assert results["repeatable"]
    assert results["seed_matters"]


def test_new_points_join_the_cloud_where_they_belong(results):
    assert results["new_points"] > 1000
    assert results["new_distance"] == pytest.approx(4.0, rel=0.1)
    assert results["merged"]


def test_a_view_without_a_hole_comes_back_with_a_note(results):
    difference, points, note = results["no_hole"]
    assert difference < 1e-5
    assert points == 0
    assert note.startswith("MF Extend View: nothing comes into view")
    assert results["merged_with_none"]


def test_views_of_a_batch_add_no_point_twice(results):
    same_points, difference = results["twice"]
    assert same_points
    assert difference < 0.02  # seen again from the same place
    assert 1 < results["further_on"] < 1.8
    same_points, note = results["no_places"]
    assert same_points
    assert note.startswith("MF Extend View: the geometry does not say where its cameras stood")


def test_a_walk_gives_a_clip_views_and_a_cloud(results):
    assert results["walk"] == [[3, 112, 128, 3], [2, 112, 128], [2, 4, 4]]
    assert results["walk_camera"] == pytest.approx([-0.2, -0.4], abs=1e-4)
    assert results["walk_black"] < 0.001
    assert results["walk_grows"]


def test_steps_that_are_left_to_the_model_are_its_own(results):
    assert results["own_steps"] == [10, 4]


def test_both_eyes_are_filled(results):
    assert results["stereo"] == [[2, 112, 128, 3], [1, 112, 256, 3], True]


def test_cameras_come_from_json_and_from_a_viewer(results):
    shape, place = results["json"]
    assert shape == [1, 112, 128, 3]
    assert place == pytest.approx([-0.5, 0, 0], abs=1e-6)
    assert results["json_for_stereo"] == [2, 112, 128, 3]  # in place of the route, so there are no eyes to put together
    assert results["aimed"] == pytest.approx([-0.2, -0.4], abs=1e-4)


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("inside", "MF Explore: camera 1 sees only"),
        ("bad_json", "MF Explore: the cameras are not readable JSON"),
        ("no_depth", "MF Extend View: the geometry has no depth"),
        ("nothing_known", "MF Extend View: view 1 sees only 0% of its view filled"),
        ("odd_size", "MF Extend View: the geometry is 128x100, and both sides must be multiples of 16"),
        ("two_maps", "MF Explore: the geometry holds 2 maps"),
        ("foreign_model", "MF Extend View: the model is not a Modality Forcing model"),
    ],
)
def test_mistakes_are_named_in_a_sentence(results, case, sentence):
    assert results[case].startswith(sentence), results[case]


def test_a_walk_has_one_bar_from_its_first_view_to_its_last_frame(results):
    values, total = results["bar"]["values"], 4 * (2 + 1) + 2
    assert results["bar"]["totals"] == [total]
    assert values == sorted(values)
    assert set(range(1, 4 * (2 + 1) + 1)) <= set(values)
    assert values[-1] == total


def test_a_walk_that_is_interrupted_in_a_later_view_ends_there_and_the_next_one_is_whole(results):
    assert results["interrupted after"] == 2 * (2 + 1) + 1
    assert results["after it"]
