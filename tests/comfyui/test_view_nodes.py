"""Point clouds and views inside ComfyUI, and core's geometry nodes on the same depth."""

import json
from pathlib import Path

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results():
    return json.loads(find_installation().run(HERE / "view_node_runs.py", PACK))


def test_every_input_and_output_has_a_tooltip(results):
    assert results["silent"] == []


def test_core_nodes_work_on_the_geometry(results):
    assert results["fov"] == pytest.approx(50.0, abs=1e-3)
    assert results["views_fov"] == pytest.approx(50.0, abs=1e-3)
    assert set(map(tuple, results["rendered"].values())) == {(1, 48, 64, 3)}
    assert results["mesh_faces"] > 1000
    assert results["mesh_to_cloud"] < 1e-6
    assert results["normals_against_core"] > 0.9999


def test_point_clouds(results):
    points = results["points"]
    assert points["whole"] == 48 * 64 - 16
    assert points["all maps"] == 2 * points["whole"]
    assert points["default"] > points["whole"]
    assert 10 < points["relative"] < points["whole"]
    assert 10 < points["depth units"] < points["whole"]
    assert results["merged"] == 2 * points["whole"]
    assert results["merged_thin"] == points["whole"]
    assert results["merged_colors"]


def test_a_view_without_movement_is_the_picture(results):
    assert results["still_error"] < 1e-5
    assert results["still_holes"]
    assert results["still_missing"]
    assert results["still_depth"] < 1e-4


def test_moved_views_clips_and_videos(results):
    assert 0.01 < results["moved_holes"] < 0.5
    assert results["fill_changes_holes_only"]
    assert results["fill_is_there"] > 0.2
    assert results["clip"] == [[5, 48, 64, 3], [5, 48, 64], [5, 5]]
    assert results["video_frames"] == 5
    assert results["video_in"] == 2
    assert results["interrupted"]
    assert results["view_of_a_view"] < 1e-6


def test_bad_input_is_named(results):
    assert results["bad_index"].startswith("To Point Cloud: batch_index is 1")
    assert "image has 3 pictures for 2 depth maps" in results["bad_image"]
    assert results["bad_format"].startswith("MF Merge Point Clouds: point_cloud0 is a glb file")
    assert "point_cloud3: this is not a PLY file" in results["bad_file"]
    assert "no valid pixel" in results["nothing_valid"]
    assert "connect one to image" in results["no_picture"]
    assert "MF Render View: the geometry has no depth" in results["no_depth"]
    assert "image has 3 pictures for 1 depth maps" in results["many_pictures"]


def test_cameras_of_the_viewer(results):
    assert results["core_axes"] < 1e-5
    assert results["core_eye"] < 1e-5
    assert results["own_camera"] < 0.01
    assert results["cloud_camera"] < 1e-3
    assert results["uncentered_camera"] < 1e-3
    assert results["travel"][0] == [4, 48, 64, 3]
    assert results["travel"][1] == 0
    assert results["travel_end"] < 1e-3
    assert results["from_own"] < 1e-4
    assert results["extrinsics"] < 1e-5
    assert "MF Render View: the camera is orthographic" in results["orthographic"]


def test_a_camera_that_was_aimed_at_all_maps_stands_in_their_world(results):
    share, difference = results["world_views"]
    assert share > 0.2
    assert difference < 0.02
    assert results["world_places"] < 1e-5
    assert results["world_file"] < 1e-3
    assert max(results["world_way"]) < 1e-5


def test_soft_depth_is_not_torn_into_strips(results):
    before, now = results["torn"]
    assert now < 0.8 * before
