"""Steps of a rollout as one graph: buffers with a stand-in for CUDA's, the real one where there is a GPU."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mforce.mforce_core import load_model, sample
from mforce.mforce_core.sampling import rollout as sampling
from mforce.mforce_core.sampling.cuda_graph import record

GOLDEN = Path(__file__).parent / "golden" / "v2"
GRID = (2, 3)


class GraphOfAddresses:
    """Replays as CUDA does: reads the addresses of recording time, writes those of the recorded outputs."""

    def __init__(self, work: Callable[[], None], denoiser: sampling.Denoiser) -> None:
        work()
        self.work, self.denoiser, self.outputs = work, denoiser, denoiser.predicted
        for tensor in self.outputs:
            tensor.fill_(float("nan"))  # a graph has no values before its first replay
        self.replays = 0

    def replay(self) -> None:
        self.work()
        for address, value in zip(self.outputs, self.denoiser.predicted, strict=True):
            address.copy_(value)
        self.denoiser.predicted = self.outputs
        self.replays += 1


def rollout(model, **options) -> tuple[list[torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
    generator = torch.Generator().manual_seed(1)
    text, null_text = (torch.randn(2, 5, 48, generator=generator) for _ in range(2))
    steps = []
    final = sample(
        model, text, GRID, steps=4, cfg=3.0, log2_alpha=2.0, null_text=null_text,
        callback=lambda step, count, rgb, depth_x0: steps.append((rgb, depth_x0)), **options,
    )  # fmt: skip
    return list(final), steps


@pytest.fixture(scope="module")
def model():
    return load_model(GOLDEN)


def test_replays_are_the_steps(model, monkeypatch) -> None:
    """The final tokens, and what a callback kept of every step, which no later step may overwrite."""
    graphs = []

    def stand_in(work: Callable[[], None], device: torch.device) -> GraphOfAddresses:
        graphs.append(GraphOfAddresses(work, work.__self__))
        return graphs[-1]

    plain, plain_steps = rollout(model)
    monkeypatch.setattr(sampling, "record", stand_in)
    replayed, replayed_steps = rollout(model, cuda_graph=True)
    assert [graph.replays for graph in graphs] == [3]
    for ours, theirs in zip((plain, *plain_steps), (replayed, *replayed_steps), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)


def test_without_a_gpu_the_steps_run_anyway(model, caplog) -> None:
    caplog.set_level(logging.INFO, "mforce")
    plain, _ = rollout(model)
    graphed, _ = rollout(model, cuda_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, graphed, strict=True))
    if next(model.parameters()).device.type == "cpu":
        assert [r.message for r in caplog.records] == ["The steps run without a CUDA graph: cpu devices have none."]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    model = load_model(GOLDEN, device="cuda")
    plain, plain_steps = rollout(model)
    graphed, graphed_steps = rollout(model, cuda_graph=True)
    for ours, theirs in zip((plain, *plain_steps), (graphed, *graphed_steps), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_work_that_waits_for_the_device_has_no_graph(caplog) -> None:
    caplog.set_level(logging.INFO, "mforce")
    x = torch.ones(1, device="cuda")
    assert record(lambda: x.item(), x.device) is None
    assert len(caplog.records) == 1
