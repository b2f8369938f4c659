"""Low-rank updates while they are trained: what a layer computes, how it is left out, and what is written of it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mforce.mforce_core.model.config import Distilled
from mforce.mforce_core.weights.header import read_header
from mforce.training.config import LoraConfig
from mforce.training.lora import LoraLinear, lora_off, merge_lora, split_lora
from mforce.training.train import train
from tiny_training import config, write_base

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture
def layer() -> LoraLinear:
    """Of rank 3 with an alpha that is not the rank."""
    generator = torch.Generator().manual_seed(0)
    layer = LoraLinear(torch.nn.Linear(6, 5, bias=False), LoraConfig(rank=3, alpha=12.0)).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    return layer


def test_a_layer_computes_what_the_merged_weight_does(layer: LoraLinear) -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    weights, pairs = split_lora({f"img_in.{name}": tensor for name, tensor in layer.state_dict().items()})
    wanted = layer.weight + 4.0 * layer.lora_B.weight @ layer.lora_A.weight
    merged = merge_lora(weights, pairs, LoraConfig(rank=3, alpha=12.0))
    torch.testing.assert_close(merged["img_in.weight"], wanted)
    torch.testing.assert_close(layer(x), x @ wanted.T)


def test_updates_are_left_out_for_as_long_as_is_asked(layer: LoraLinear) -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    before = layer(x)
    with lora_off(torch.nn.Sequential(layer)):
        torch.testing.assert_close(layer(x), x @ layer.weight.T)
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize("merge", [True, False])
def test_what_has_the_few_steps_says_so(data: Path, tmp_path: Path, merge: bool) -> None:
    """The LoRA file always; the model where the updates are in it."""
    base = write_base(tmp_path / "base", config("mf", data, tmp_path, base=tmp_path))
    lora = {"lora.merge": str(merge).lower(), "lora.rank": 2}
    made = config("distill", data, tmp_path / "run", base=base, steps=1, trainable="lora", **lora)
    train(made)
    distilled = Distilled(made.distillation.steps, made.distillation.path)
    with safe_open(tmp_path / "run" / "lora.safetensors", "pt") as file:
        assert Distilled(**json.loads(file.metadata()["distilled"])) == distilled
    assert read_header(tmp_path / "run" / "model").config.distilled == (distilled if merge else None)
