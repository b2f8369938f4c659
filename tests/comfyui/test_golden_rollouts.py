"""The release's rollouts through ComfyUI's own guider and sampler."""

import json
from pathlib import Path

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_core_sampler_reproduces_the_golden_rollouts(variant):
    output = find_installation().run(HERE / "golden_rollouts.py", PACK, PACK / "tests" / "golden" / variant)
    errors = json.loads(output)
    assert len(errors) == 10
    assert max(errors.values()) < 2e-5, errors
