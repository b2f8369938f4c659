"""ComfyUI's attention functions behind the pack's."""

import json
from pathlib import Path

from .host import PACK, find_installation

HERE = Path(__file__).parent


def test_flags_and_patches_reach_the_transformer():
    results = json.loads(find_installation().run(HERE / "attention_runs.py", PACK))
    assert results["free"]
    assert results["override"] < 1e-5
    (call,) = results["override_calls"]
    assert call[0].startswith("attention_")
    assert call[1] == ["optimized_attention_override", "sigmas"]
    assert len(results["flags"]) == 4
    assert max(results["flags"].values()) < 1e-5
    assert results["calls_for_a_gradient"] == 0
