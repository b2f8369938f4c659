"""Checkpoints of every precision through ComfyUI's own layers, and a part of their weights on the device."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent
SCALED = ("fp8", "listed", "legacy", "unmarked weight_scale", "unmarked scale_weight")
QUANTIZED = (*SCALED, "int8")


@pytest.fixture(scope="module")
def runs():
    with TemporaryDirectory() as folder:  # 400 MB, gone as soon as they have been read
        golden = PACK / "tests" / "golden" / "v2"
        return json.loads(find_installation().run(HERE / "loading_runs.py", PACK, golden, folder))


def test_sixteen_and_thirty_two_bits(runs):
    assert max(runs["fp32"]["error"]) == 0
    assert max(runs["bf16"]["error"]) < 1e-2  # the golden weights are float32
    assert max(runs["bf16"]["against_core"]) == 0


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_layers_are_cores_own_and_the_depth_head_stays_float32(runs, name):
    assert runs[name]["quantized"] == "QuantizedTensor"
    assert runs[name]["depth_head"] == "torch.float32"


def test_errors_of_eight_bits(runs):
    """Relative, of one forward pass; docs/memory.md has those of nano."""
    for name in SCALED:
        assert max(runs[name]["error"]) < 0.03
        assert max(runs[name]["against_core"]) < 1e-6
    assert max(runs["int8"]["error"]) < 0.01
    assert max(runs["int8"]["against_core"]) < 0.01  # core rounds activations to 8 bits as well
    unscaled = runs["torch.float8_e4m3fn"], runs["torch.float8_e5m2"]
    assert max(runs["fp8"]["error"]) < min(min(found["error"]) for found in unscaled)
    assert max(found["bytes"] for found in unscaled) < runs["fp8"]["bytes"] < 0.55 * runs["fp32"]["bytes"]


@pytest.mark.parametrize("name", ["fp8", "int8"])
def test_eight_bits_that_only_keep_a_file_small_are_floats_in_memory(runs, name):
    """As the built-in model is loaded."""
    found = runs[f"dequantized {name}"]
    assert found["quantized"] == "Parameter"
    assert found["bytes"] == runs["fp32"]["bytes"]
    assert max(found["against_core"]) == 0


def test_fast_fp8_multiplies_in_eight_bits_and_the_default_does_not(runs):
    assert runs["fast"] == [False, True]


def test_values_and_scales_are_those_of_comfy_kitchen(runs):
    assert set(runs["kitchen"]) == {"fp8_512", "fp8_192", "int8_512", "int8_192"}
    for found in runs["kitchen"].values():
        assert found["different"] == 0
        assert found["scale"] < 1e-6


@pytest.mark.parametrize("name", ["fp32", "fp8", "int8"])
def test_a_run_with_offloaded_weights_is_the_same(runs, name):
    plain = runs["partial"][name]["plain"]
    assert 0 < plain["loaded"] < 0.6
    assert plain["difference"] == 0
    assert plain["needed"] > 0


@pytest.mark.parametrize("name", ["fp32", "fp8", "int8"])
def test_a_lora_acts_on_offloaded_layers(runs, name):
    found = runs["partial"][name]
    assert found["lora"]["patches"] == 3
    assert found["effect_of_lora"] > 1
    # A loaded layer is rounded to 8 bits again with its LoRA; an offloaded one is not.
    assert found["lora"]["difference"] <= {"fp32": 0, "fp8": 0.02, "int8": 0.006}[name]


def test_the_text_encoder_makes_room_for_the_transformer(runs):
    ample, tight = runs["turns"]["ample"], runs["turns"]["tight"]
    assert ample["during"] == ample["before"] > 0
    assert tight["before"] == ample["before"]
    assert tight["during"] == 0
    assert tight["transformer"] == ample["transformer"] == runs["fp8"]["bytes"]


def test_one_file_autoencoder_opens_in_cores_loader(runs):
    found = runs["autoencoder"]
    assert found["spread"] > 1e-3
    assert max(found["encode"], found["decode"]) < 1e-4


def test_text_encoder_and_autoencoder_of_one_file(runs):
    if runs["bundle"] is None:
        pytest.skip("the built-in model's weights are not in models/nano")
    assert runs["bundle"] == [True, True]


def test_stock_nodes_say_which_loader_brings_the_missing_part(runs):
    said = runs["missing_parts"]
    for name in ("CLIPTextEncode", "copied"):
        assert said[name].startswith("int8.safetensors carries no text encoder.")
        assert "CLIPLoader of type flux2" in said[name]
    for name in ("VAEDecode", "VAEEncode"):
        assert said[name].startswith("int8.safetensors carries no VAE.")
