"""The rows of the attention benchmark; times are not looked at."""

import json

import pytest
import torch

import kernel_evidence  # noqa: F401  (Triton's interpreter where there is no GPU)
from mforce.benchmarks.attention import measure_attention


def test_rows() -> None:
    rows = measure_attention(torch.device("cpu"), torch.float32, [(1, 2, 20, 16)], rounds=2)
    json.dumps(rows)
    timed = [row for row in rows if "seconds" in row]
    assert {(row["pass"], row["backend"]) for row in timed} >= {
        (step, name) for step in ("forward", "backward") for name in ("sdpa", "sdpa_math", "reference")
    }
    for row in timed:
        work = (4 if row["pass"] == "forward" else 10) * 2 * 20**2 * 16
        assert row["operations_per_second"] == pytest.approx(work / row["seconds"])
    for step in ("forward", "backward"):
        best = max(
            row["speed_over_best_sdpa"] for row in timed if row["pass"] == step and row["backend"].startswith("sdpa")
        )
        assert best == 1
    missing = [row for row in rows if row["backend"] == "sdpa_cudnn"]
    assert len(missing) == 2
    assert all("failed" in row["problem"] for row in missing)
