"""Splats, passes, layered files, lens effects, stereo, cameras and the sky inside ComfyUI, beside core's own nodes."""

import json
from pathlib import Path

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return json.loads(find_installation().run(HERE / "export_node_runs.py", PACK, tmp_path_factory.mktemp("work")))


def test_core_reads_the_splats_and_renders_the_picture_from_them(results):
    first, second = results["splat_count"]
    assert first == second > 2500
    assert all(error < 1e-5 for error in results["splat_file"].values()), results["splat_file"]
    assert results["splat_turns"] > 0.99999
    # Gaussians of half a pixel blur a picture that changes this fast a little.
    assert results["splat_picture"] < 0.05
    assert results["splat_picture"] < 0.2 * results["splat_flipped"]
    assert results["splat_upright"] < 0.05
    assert "MF To Gaussian Splats: batch_index is 1" in results["splat_index"]


def test_passes_agree_with_cores(results):
    assert results["normals"] > 0.999
    assert results["position"] < 1e-5
    low, high = results["occlusion"]
    assert 0.3 < low < 0.95
    assert high == pytest.approx(1.0)
    assert results["known"]


def test_layers_are_written_as_a_sequence(results):
    assert results["layer_files"] == ["l_00001.1001.exr", "l_00001.1002.exr"]
    assert results["layers"] == sorted([*"RGBAZ", "mask.A", "N.X", "N.Y", "N.Z", "P.X", "P.Y", "P.Z", "AO.R"])
    assert results["layer_text"]
    assert results["layer_depth"]
    assert results["layer_position"] == 0


def test_lens_effects(results):
    assert results["in_focus"] < 0.01
    assert results["out_of_focus"] > 0.01
    assert results["stopped_within_a_frame"]
    assert results["clear"] < 1e-6
    shape, sky, nearer_is_clearer = results["fog"]
    assert shape == [2, 48, 64, 3]
    assert sky == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)
    assert nearer_is_clearer
    assert "write it as #rrggbb" in results["fog_color"]
    assert "MF Fog: the geometry has no picture" in results["no_picture"]


def test_stereo_pairs(results):
    assert results["stereo"] == [[2, 48, 128, 3], True]
    left, right = results["stereo_holes"]
    assert 0.005 < left < 0.3
    assert right == pytest.approx(left, abs=0.05)
    assert results["stereo_screen"] < 0.02
    to_left, still, to_right = results["stereo_moves"]
    assert to_right < 0.5 * still
    assert to_right < 0.5 * to_left
    assert results["stereo_left"] < 1e-4
    assert results["stereo_swap"]
    assert results["anaglyph"] == [1, 48, 64, 3]
    assert results["stereo_video"] == 2
    assert results["interrupted"]


def test_cameras_are_saved_as_they_were_rendered(results):
    name, count, frame, at_zero, moved = results["chan"]
    assert (name, count, frame, at_zero) == ("camera_00001.chan", 3, 1001, True)
    assert moved == pytest.approx(results["chan_expected"], rel=1e-6)
    assert abs(moved) > 0.05
    assert results["json"] == 3
    (warning,) = results["shifted_lens"]
    assert "choose json or usda" in warning
    assert results["usd"]
    assert results["clouds_of_views"] < 0.03


def test_the_sky_is_found_and_handled(results):
    assert results["sky"]
    assert results["sky_gone"]
    assert results["sky_placed"] == pytest.approx(20.0)
    assert results["sky_da3"] > 20
    assert not results["sky_mask"]
