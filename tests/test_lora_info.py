"""`mforce info` on LoRA files: our own, PEFT's and kohya's names, against how they were made."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("typer")

from typer.testing import CliRunner

from mforce.cli.app import app
from mforce.cli.lora_info import describe_lora, is_lora
from mforce.mforce_core.model.config import Architecture
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from mforce.training.config import LoraConfig
from mforce.training.lora import add_lora, save_lora, split_lora

KLEIN = Architecture(
    depth_channels=0, context_in_dim=7680, hidden_size=3072, num_heads=24, depth_double=5, depth_single=20
)


def trained(path: Path, sizes: Architecture, config: LoraConfig) -> int:
    """A file as a run writes it; its number of pairs."""
    with torch.device("meta"):
        model = ModalityForcingTransformer(sizes)
    add_lora(model, config)
    state = {name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items() if ".lora_" in name}
    save_lora(split_lora(state)[1], config, path)
    return len(state) // 2


def test_a_file_of_our_own(tmp_path: Path) -> None:
    config = LoraConfig(rank=4, alpha=8.0)
    pairs = trained(tmp_path / "lora.safetensors", KLEIN, config)
    found = describe_lora(tmp_path / "lora.safetensors")
    assert found.layers == pairs == 5 * 8 + 20 * 2
    assert (found.rank, found.alpha) == ({4: pairs}, {8.0: pairs})
    assert found.targets["img_attn.qkv"] == 5
    assert found.targets["linear1"] == 20
    assert (found.width, found.double_blocks, found.single_blocks) == (3072, 5, 20)
    assert found.fits == ["FLUX.2-klein-4B, and what is trained from it"]
    assert found.problems == []


@pytest.mark.parametrize(
    ("name", "down", "up"),
    [
        ("transformer.transformer_blocks.7.attn.to_q", "lora_A.weight", "lora_B.weight"),
        ("base_model.model.single_transformer_blocks.23.attn.to_out", "lora_A.default.weight", "lora_B.default.weight"),
        ("lora_unet_double_blocks_7_img_attn_proj", "lora_down.weight", "lora_up.weight"),
    ],
)
def test_names_of_other_programs(tmp_path: Path, name: str, down: str, up: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file({f"{name}.{down}": torch.zeros(16, 4096), f"{name}.{up}": torch.zeros(4096, 16)}, path)
    found = describe_lora(path)
    assert (found.rank, found.alpha, found.width) == ({16: 1}, {16.0: 1}, 4096)
    assert found.fits == ["FLUX.2-klein-9B, and the Modality Forcing release"]
    number = {"double": found.double_blocks, "single": found.single_blocks}
    assert number == ({"double": 0, "single": 24} if "single" in name else {"double": 8, "single": 0})


def test_what_is_broken_and_what_fits_nothing_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {
        "double_blocks.0.img_attn.qkv.lora_A.weight": torch.zeros(4, 100),
        "double_blocks.0.img_attn.qkv.lora_B.weight": torch.zeros(300, 3),
        "double_blocks.1.img_attn.qkv.lora_A.weight": torch.zeros(4, 100),
    }
    save_file(tensors, path)
    assert is_lora(path)
    found = describe_lora(path)
    assert len(found.problems) == 2
    assert found.fits == []
    result = CliRunner().invoke(app, ["info", str(path)])
    assert result.exit_code == 1
    assert "only one half" in " ".join(result.output.split())
    result = CliRunner().invoke(app, ["info", str(path), "--json"])
    assert json.loads(result.output)["rank"] == {"4": 1}


@pytest.mark.parametrize("text", ["{", '{"steps": 4}', "4", '{"steps": "4", "path": ""}'])
def test_a_damaged_word_on_few_steps_is_a_problem(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    pair = {"img_in.lora_A.weight": torch.zeros(2, 8), "img_in.lora_B.weight": torch.zeros(8, 2)}
    save_file(pair, path, metadata={"distilled": text})
    result = CliRunner().invoke(app, ["info", str(path)])
    assert result.exit_code == 1
    assert "is not readable" in " ".join(result.output.split())


def test_a_model_is_no_lora() -> None:
    assert not is_lora(Path(__file__).parent.parent / "models" / "nano" / "model.safetensors")
    assert not is_lora(Path(__file__).parent)
