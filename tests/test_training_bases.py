"""Bases that other programs wrote, as the start of a training run."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_names import as_diffusers
from mforce.mforce_core import load_model
from mforce.training.processes import join
from mforce.training.train import Trainer, train
from tiny_training import config, write_base

# One process saving alone is meant.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.mark.parametrize("teacher", ["device", "host"])
def test_a_base_under_the_names_of_diffusers_trains_as_under_our_own(data: Path, tmp_path: Path, teacher: str) -> None:
    """The same first steps, also where the frozen teacher reads its matrices from that file."""
    base = write_base(tmp_path / "base", config("t2i", data, tmp_path))
    weights = {name.removeprefix("dit."): tensor for name, tensor in load_file(base / "model.safetensors").items()}
    # Its sizes are told by the tensors: there is no config.json.
    save_file(as_diffusers(weights), tmp_path / "diffusers.safetensors")
    more = {"scale.teacher": teacher, "log_every": 1}
    measures = []
    for name, path in (("own", base), ("other", tmp_path / "diffusers.safetensors")):
        trainer = Trainer(config("mf", data, tmp_path / name, base=path, **more), join("cpu"))
        for _ in range(2):
            trainer.train_step()
        measures.append(trainer.measures())
        trainer.close()
    assert measures[0]["distillation"] > 0
    for name in ("rgb", "depth", "distillation", "gradient_norm"):
        assert measures[0][name] == measures[1][name]


def test_a_run_from_it_exports_our_own_names(data: Path, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", config("t2i", data, tmp_path))
    weights = {name.removeprefix("dit."): tensor for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(as_diffusers(weights), tmp_path / "diffusers.safetensors")
    more = {"base": tmp_path / "diffusers.safetensors", "trainable": "depth", "steps": 2}
    train(config("mf", data, tmp_path / "out", **more))
    trained = load_model(tmp_path / "out" / "model").state_dict()
    for name, tensor in weights.items():
        assert torch.equal(trained[name].float(), tensor.bfloat16().float()), name
