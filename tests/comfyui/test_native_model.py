"""The MODEL in core's own hands: samplers, guiders, LoRA, hooks, caches, masks, previews."""

import json
from pathlib import Path

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    work = tmp_path_factory.mktemp("native")
    return json.loads(find_installation().run(HERE / "native_runs.py", PACK, PACK / "tests" / "golden" / "v2", work))


@pytest.mark.parametrize("way", ["advanced", "cfg_guider", "denoised_output", "basic_guider", "dual_guider", "img2img"])
def test_every_sampler_node_takes_the_same_way(results, way):
    assert results[way] < 1e-4


def test_lora_files_of_the_base_act_on_its_layers_and_go_again(results):
    assert results["lora_layers"]
    assert results["lora_changes"] > 1e-3
    assert results["lora_off"] == 0
    assert results["lora_restored"]


def test_lora_hooks_do_what_a_lora_does(results):
    assert results["hook"] < 1e-5
    assert results["hook_gone"] == 0


def test_caches_and_compilation(results):
    assert "LazyCache" in results["easycache"]
    assert 0 < results["lazycache"] < 0.5  # it skips steps, and stays near
    assert results["compiled"] < 1e-5


def test_attention_of_the_host_and_of_the_node(results):
    assert results["host_attention"] < 1e-5
    assert results["host_attention_calls"] > 0
    assert results["host_attention_calls_when_not_asked"] == 0


def test_patches_for_other_transformers_are_refused(results):
    assert "dit" in results["block_patch"]


def test_clones_for_other_gpus_get_the_settings_of_the_run(results):
    assert results["multigpu_told"]
    assert results["multigpu_run"] == 0


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m_sde", "uni_pc"])
@pytest.mark.parametrize("masked", ["rgb_part", "depth_part", "both"])
def test_what_is_masked_out_stays_exactly(results, masked, sampler):
    assert results[f"{masked}_{sampler}_stays"]
    assert results[f"{masked}_{sampler}_new"]


def test_image_to_image_makes_the_depth_that_it_lacks(results):
    assert results["img2img_without_depth"]
    assert "MF Merge Latent" in results["img2img_of_nothing"]


def test_previews_show_both_streams(results):
    ((width, height),) = results["preview_sizes"]
    assert (width, height) == (96, 32)  # 6 x 4 cells, 8 pixels each, twice side by side
    assert results["preview_depth_changes"]
    assert results["preview_depth_has_range"]
    assert results["packed_callback"]
