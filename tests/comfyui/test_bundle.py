"""Load MF Model on one-file checkpoints, folders and GGUF in a real ComfyUI."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def runs():
    with TemporaryDirectory() as folder:  # 700 MB, gone as soon as they have been read
        return json.loads(find_installation().run(HERE / "bundle_runs.py", PACK, folder))


@pytest.mark.parametrize("form", ["bundle.safetensors", "copy"])
def test_nano_in_one_file_and_in_a_folder_makes_the_same_pixels(runs, form):
    if runs["forms"] is None:
        pytest.skip("the built-in model's weights are not in models/nano")
    assert runs["forms"]["listed"] == [True, True]
    assert runs["forms"][form] == [0, 0, 0]  # picture, depth, colors of the live preview


def test_qwen_of_a_one_file_checkpoint_gives_the_features_of_transformers(runs):
    assert runs["qwen"]["shape"] == [1, 512, 3 * 64]
    assert runs["qwen"]["error"] < 1e-4


def test_autoencoder_of_a_one_file_checkpoint_is_the_one_that_core_loads(runs):
    assert runs["vae"].pop("spread") > 0.01
    assert runs["vae"] == {"vae_inside.safetensors": 0, "first_stage.safetensors": 0}


def test_gguf_opens_in_the_node(runs):
    if runs["gguf"] is None:
        pytest.skip("this ComfyUI has no gguf package")
    assert runs["gguf"].pop("tensors") > 40
    assert runs["gguf"] == {"listed": True, "different": []}
