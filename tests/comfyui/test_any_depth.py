"""Depth of every kind in, geometry out, inside ComfyUI; numbered sequences in and out."""

import json
from pathlib import Path

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return json.loads(find_installation().run(HERE / "any_depth_runs.py", PACK, tmp_path_factory.mktemp("work")))


def test_a_cloud_of_every_kind_of_depth_is_where_the_pinhole_formula_says(results):
    errors = {name: value for name, value in results.items() if name.startswith("cloud ")}
    assert len(errors) == 6
    assert all(error < 2e-6 for error in errors.values()), errors
    assert results["picture without one"]
    assert "MF Depth to Geometry: no pixel is valid" in results["empty"]


def test_nodes_take_the_geometry_of_depth_anything_3_directly(results):
    assert results["DA3 cloud"] == (48 - 5) * 64
    assert results["DA3 view"] == [1, 48, 64, 3]
    assert results["DA3 restored"] == [1, 48, 64, 3]


def test_enlarged_depth_stays_known_as_such(results):
    assert results["enlarged"] == [2.0, 2.0, 3.0]


@pytest.mark.parametrize("name", ["DA3 views", "DA3 views, converted"])
def test_views_of_several_cameras_become_one_cloud(results, name):
    assert results[f"{name}: wall"] < 1e-5
    assert results[f"{name}: normals"] < 1e-5
    assert results[f"{name}: core, in pixels"] < 1.0


def test_sequences_go_out_and_come_in(results):
    names = results["sequence names"]
    assert names["npy"] == ["z_00001.1001.npy", "z_00001.1002.npy", "z_00001.1003.npy"]
    assert names["tiff (32-bit)"][0] == "z_00002.1001.tiff"
    assert results["next run"] == "z_00004.0005.npy"
    assert results["listed"] == [
        "shot/z_00001.####.npy", "shot/z_00002.####.tiff", "shot/z_00003.####.png", "shot/z_00004.####.npy",
    ]  # fmt: skip
    assert results["sequence npy"] == 0
    assert results["sequence tiff (32-bit)"] == 0
    assert results["sequence png (16-bit)"] < 1e-4


def test_frames_that_are_missing_or_of_another_size_are_said(results):
    assert results["fingerprint"]
    assert "z_00001.####.npy lacks 1 of the frames 1001 to 1003: 1002" in results["gap"]
    assert str(PACK.parent) not in results["gap"]
    assert (results["held"], results["skipped"]) == (3, 2)
    assert "z_00001.1002.npy is 8x8, but z_00001.1001.npy is 64x48" in results["sizes"]
    assert "there is no file shot/gone.####.npy" in results["no sequence"]
