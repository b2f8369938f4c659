"""The folder that a training run exports, in ComfyUI's hands: it opens with its text encoder and its autoencoder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mforce.training.config_file import read_train_config
from mforce.training.train import train

from .host import PACK, find_installation

HERE = Path(__file__).parent
NANO = PACK / "models" / "nano"

# One process saving alone is meant.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    installation = find_installation()
    folder = tmp_path_factory.mktemp("trained")
    tensors = {"rgb": torch.randn(8, 128, 2, 2).half(), "depth": torch.rand(8, 32, 32).half() + 1}
    save_file(tensors, folder / "latents-0.safetensors", metadata={"captions": json.dumps(["a red cube"] * 8)})
    parts = {"vae": str(NANO / "autoencoder.safetensors"), "text_encoder": str(NANO)}
    (folder / "encode.json").write_text(json.dumps({"parts": parts}))
    sizes = ["hidden_size=32", "num_heads=1", "axes_dim=[8, 8, 8, 8]", "depth_single=1"]
    more = [f"architecture.{size}" for size in sizes]
    more += [f"data.latents={folder}", "batch_size=4", "steps=2", "precision=float32", "compile=false"]
    train(read_train_config(Path("nano-t2i"), [*more, f"out={folder}/t2i"]))
    for name, copy in (("named", "false"), ("copied", "true")):
        settings = [f"out={folder}/{name}", f"base={folder}/t2i/model", f"copy_parts={copy}"]
        train(read_train_config(Path("nano-mf"), [*more, *settings]))
        shutil.move(folder / name / "model", folder / "models" / name)
    copied = json.loads((folder / "models" / "copied" / "config.json").read_text())
    assert copied["text_encoder"] == "mforce:models/nano"
    assert copied["vae"] == "mforce:models/nano/autoencoder.safetensors"
    shutil.copytree(folder / "models" / "named", folder / "models" / "moved")
    gone = copied | {"text_encoder": "/nowhere/words.safetensors", "vae": "//host/share/vae.safetensors"}
    (folder / "models" / "moved" / "config.json").write_text(json.dumps(gone))
    # The copied folder needs nothing but itself.
    del copied["text_encoder"], copied["vae"]
    (folder / "models" / "copied" / "config.json").write_text(json.dumps(copied))
    return json.loads(installation.run(HERE / "trained_model_runs.py", PACK, folder / "models"))


def test_text_encoder_and_autoencoder_are_found_by_name_and_beside_the_model(runs):
    assert runs["same"]


def test_the_autoencoder_of_nano_does_not_judge_another_models_pictures(runs):
    assert not runs["knows_nanos_pictures"]


def test_a_folder_whose_parts_are_elsewhere_loads_and_says_what_is_missing(runs):
    assert [text.split(".")[0] for text in runs["moved"]] == ["moved carries no text encoder", "moved carries no VAE"]
