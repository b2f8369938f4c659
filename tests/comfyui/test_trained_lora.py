"""A LoRA that training wrote, in ComfyUI's hands: applied to the unmerged model it is the merged model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mforce.mforce_core.encoders.words import WordTextEncoder
from mforce.training.config_file import read_train_config
from mforce.training.train import train

from .host import PACK, find_installation

HERE = Path(__file__).parent


def settings(folder: Path, out: str, *more: str) -> list[str]:
    sizes = ["in_channels=128", "hidden_size=64", "num_heads=2", "axes_dim=[8, 8, 8, 8]", "depth_single=1"]
    return [
        *(f"architecture.{size}" for size in sizes),
        *(f"{key}={folder}" for key in ("text_encoder", "data.latents")),
        *(f"out={folder / out}", "batch_size=4", "precision=float32", "compile=false", "optimizer.warmup_steps=0"),
        *(
            "optimizer.name=adamw",
            "optimizer.learning_rate=0.02",
            "optimizer.ema_decay=0",
            "optimizer.cooldown_steps=0",
            *more,
        ),
    ]


# One process saving alone is meant.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    installation = find_installation()
    folder = tmp_path_factory.mktemp("lora")
    tensors = {"rgb": torch.randn(8, 128, 2, 2).half(), "depth": torch.rand(8, 32, 32).half() + 1}
    save_file(tensors, folder / "latents-00000.safetensors", metadata={"captions": json.dumps(["red"] * 8)})
    WordTextEncoder.random(["red"], 128, 2).save(folder / "text_encoder.safetensors")
    train(read_train_config(Path("nano-t2i"), settings(folder, "t2i", "steps=6")))
    found = {}
    for preset, base in (("nano-mf", "t2i"), ("nano-distill", "nano-mf-true")):
        for merge in ("false", "true"):
            more = ("trainable=lora", "lora.rank=4", "lora.alpha=8.0", f"lora.merge={merge}")
            own = settings(folder, f"{preset}-{merge}", "steps=6", f"base={folder}/{base}/model", *more)
            train(read_train_config(Path(preset), own))
        unmerged = folder / f"{preset}-false"
        arguments = unmerged / "model", unmerged / "lora.safetensors", folder / f"{preset}-true/model"
        found[preset] = json.loads(installation.run(HERE / "trained_lora_runs.py", PACK, *arguments))
    return found


def test_every_pair_finds_its_layer_of_the_image_and_text_half(results):
    found = results["nano-mf"]
    assert len(found["layers"]) == found["pairs"] == 8 + 2  # one double block, one single block
    assert not [name for name in found["layers"] if "depth" in name]


def test_a_student_has_pairs_on_its_depth_stream_too(results):
    found = results["nano-distill"]
    assert len(found["layers"]) == found["pairs"] == 12 + 2 + 2  # a double, a single and a depth-decoder block
    assert "double_blocks.0.depth_attn.qkv.weight" in found["layers"]
    assert [found["made_for"], found["unmerged_made_for"]] == [4, None]  # the teacher's weights are not the student's


def test_guidance_on_top_of_a_student_is_remarked_on_once(results):
    assert results["nano-mf"]["said"] == []
    (sentence,) = results["nano-distill"]["said"]  # of a run with cfg 1 and one with cfg 4
    assert sentence.startswith("This model was made for 4 steps without guidance: a cfg of 4")


@pytest.mark.parametrize("preset", ["nano-mf", "nano-distill"])
def test_the_file_makes_the_merged_model(results, preset):
    found = results[preset]
    assert found["update"] > 0.05
    assert found["error"] < 0.02  # of the update; the files are bfloat16
    assert found["others_equal"]
