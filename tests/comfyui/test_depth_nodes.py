"""Depth in and out inside ComfyUI: files, pictures, core's geometries, and back to the original size."""

import json
from pathlib import Path

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    output = find_installation().run(HERE / "depth_node_runs.py", PACK, tmp_path_factory.mktemp("work"))
    return json.loads(output)


@pytest.mark.parametrize("format", ["npy", "exr", "png (16-bit)"])
def test_saved_depth_is_loaded_again(results, format):
    errors = {name: value for name, value in results.items() if name.startswith(f"{format} ")}
    # What Load Image makes of channels R, G and B.
    assert errors.pop("exr in Load Image", 0) == 0
    exact = 0 if format != "png (16-bit)" else 1e-4
    assert errors.pop(f"{format} depth") <= exact
    assert errors.pop(f"{format} disparity (1 / depth)") <= exact
    # The nearest 65535th of the range is one value.
    assert all(error < 1e-4 for error in errors.values())


def test_saved_files_are_numbered_and_say_where_they_come_from(results):
    assert results["numbers"] == [f"seq_0000{number}.npy" for number in range(1, 5)]
    assert results["batch numbers"] == [
        "map0_00001.npy",
        "map0_00003.npy",
        "map1_00002.npy",
        "map1_00004.npy",
    ]
    assert results["png text"] == ["mforce_depth", "prompt", "workflow"]
    assert results["anonymous text"] == ["mforce_depth"], "with --disable-metadata"
    assert results["fingerprint changes"]


def test_depth_comes_out_in_the_unit_in_which_it_came(results):
    assert results["unit"] < 1e-6


def test_depth_anything_3_is_understood(results):
    assert results["da3 sky"]
    assert results["da3 fov"] == pytest.approx([64.0108, 50.2297], abs=1e-3)


def test_pictures_of_depth(results):
    assert results["picture 1 / depth"] < 1e-6
    assert results["picture depth"] < 1e-6
    assert results["picture like Detokenize"] < 1e-4
    assert results["picture like MoGeRender"] < 1e-6
    together, apart = results["same range"]
    assert together > 0.1
    assert apart == 0


@pytest.mark.parametrize("fit", ["letterbox", "crop", "stretch", "keep aspect", "keep size"])
def test_depth_goes_back_onto_the_photo(results, fit):
    found = results[f"restore {fit}"]
    assert found["between"] == 0, "nothing floats between the disc and the floor"
    assert found["median"] < 0.003
    assert found["off"] < 0.005, "only along the disc's edge"
    assert found["square"] == pytest.approx(1)
    assert found["center"] < 1e-6
    assert found["colors"] < 1e-3
    # The camera of the square that was cut out of the middle sees 60 degrees.
    assert found["fov"] == pytest.approx(75.178 if fit == "crop" else 60, abs=1e-3)


def test_keep_aspect_finds_the_nearest_size_on_the_grid(results):
    assert results["keep aspect"] == [[112, 144], [96, 176], [128, 128], [16, 2560]]


def test_bad_input_gets_one_clear_sentence(results):
    for name, text in results["messages"].items():
        assert text.endswith("."), name
        assert "\n" not in text
        assert text.partition(":")[0] in (
            "Encode Depth",
            "Depth Detokenize",
            "MF Load Depth",
            "MF Save Depth",
            "MF Restore Size",
            "MF Depth Map to Image",
        )
