"""nano-fast in a real ComfyUI: by itself, as a LoRA that core's loader puts onto nano, and as the core samples it."""

import json
from pathlib import Path

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found():
    return json.loads(find_installation().run(HERE / "nano_fast_runs.py", PACK))


def test_the_node_says_how_it_is_to_be_run(found):
    assert found["steps"] == 4
    (said,) = found["said"]
    assert said.startswith("nano-fast (built-in) is made for 4 steps without guidance: set steps to 4 (1 from")


def test_a_run_of_many_more_steps_gets_a_notice_and_one_of_its_own_none(found):
    own, (of_many,) = found["notices"]
    assert own == []
    assert of_many.startswith("This model was made for 4 steps without guidance (1 from image to depth and 6 from")
    assert of_many.endswith("13 take longer and are not what it learned.")


def test_core_reads_every_tensor_of_the_file(found):
    assert found["not_loaded"] == []
    assert found["patched"] == found["changed"] > 40


def test_core_makes_the_same_weights_and_pictures_of_nano(found):
    assert found["weights"] <= 1e-5
    assert found["latents"] <= 1e-5
    assert found["pixels"] <= 1e-4
    assert found["other_than_nano"] > 0.05


def test_the_sampler_equals_the_rollout_of_the_core(found):
    assert found["rollout"] <= 1e-5
