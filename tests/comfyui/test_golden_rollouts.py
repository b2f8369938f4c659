"""The release's rollouts through ComfyUI's own guider and sampler."""

import json
from pathlib import Path

from .host import PACK, find_installation

HERE = Path(__file__).parent


def test_core_sampler_reproduces_the_golden_rollouts():
    variants = [PACK / "tests" / "golden" / name for name in ("v1", "v2")]
    errors = json.loads(find_installation().run(HERE / "golden_rollouts.py", PACK, *variants))
    assert set(errors) == {"v1", "v2"}
    for found in errors.values():
        assert len(found) == 10
        assert max(found.values()) <= 1e-5, errors
