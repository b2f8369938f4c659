"""MF Sampler against the pack's own rollout, and the stock samplers on the same model."""

import json
from pathlib import Path

from .host import PACK, find_installation

HERE = Path(__file__).parent


def test_sampler_equals_the_rollout_of_the_core():
    output = find_installation().run(HERE / "sampler_runs.py", PACK, PACK / "tests" / "golden" / "v2")
    results = json.loads(output)
    errors = {name: value for name, value in results.items() if isinstance(value, float)}
    assert set(errors) == {
        "joint",
        "tilted",
        "refined",
        "i2d",
        "d2i",
        "many_steps",
        "batch",
        "ksampler",
        "ksampler_i2d",
    }
    assert max(errors.values()) <= 1e-5, errors
    assert results["noise_alone"]
    assert results["picture in a batch"]
    assert results["not as core"] == []
    # It chooses its steps by the error of the whole batch.
    assert results["not as alone"] == ["dpm_adaptive"]
    assert results["taken_from_a_batch"]
    assert results["callbacks"] == [8, 16]
    assert results["frozen_unchanged"]
    assert results["wrong_latent"].startswith("MF Sampler: the latent is not")
    assert "MF Image to Depth Latent" in results["nothing_given"]
    assert "flux2" in results["wrong_text"]
    assert "joint latent" in results["stock_wrong_latent"]
    assert "channels" in results["swapped"]
