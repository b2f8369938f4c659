"""Steps of a rollout as one graph: addresses with a stand-in for CUDA's graphs, the real ones where there is a GPU."""

import copy
import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mforce.kernels import pinned, use_attention
from mforce.mforce_core import load_model, sample
from mforce.mforce_core.sampling import cuda_graph
from mforce.mforce_core.sampling.denoiser import kept_graphs

GOLDEN = Path(__file__).parent / "golden" / "v2"
GRID = (2, 3)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

Outputs = tuple[torch.Tensor, ...]


class GraphOfAddresses:
    """Replays as CUDA does: reads the addresses of recording time, writes those of the recorded outputs."""

    def __init__(self, work: Callable[[], Outputs]) -> None:
        self.work, self.outputs = work, work()
        for tensor in self.outputs:
            tensor.fill_(float("nan"))  # a graph has no values before its first replay

    def replay(self) -> None:
        for address, value in zip(self.outputs, self.work(), strict=True):
            address.copy_(value)


@pytest.fixture
def recorded(monkeypatch) -> list[GraphOfAddresses]:
    """Graphs of the stand-in, as they are recorded."""
    graphs = []

    def record(work: Callable[[], Outputs], device: torch.device) -> tuple[GraphOfAddresses, Outputs]:
        graphs.append(GraphOfAddresses(work))
        return graphs[-1], graphs[-1].outputs

    monkeypatch.setattr(cuda_graph, "record", record)
    return graphs


def rollout(model, *, grid=GRID, **options) -> tuple[list[torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
    generator = torch.Generator().manual_seed(options.pop("words", 1))
    text, null_text = (torch.randn(2, 5, 48, generator=generator) for _ in range(2))
    steps = []
    final = sample(
        model, text, grid, **{"steps": 4, "cfg": 3.0, "log2_alpha": 2.0, "null_text": null_text} | options,
        callback=lambda step, count, rgb, depth_x0: steps.append((rgb, depth_x0)),
    )  # fmt: skip
    return list(final), steps


def assert_equal(ours, theirs) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def replays(model) -> list[int]:
    return [graph.replays for graph in kept_graphs(model)]


@pytest.fixture
def model():
    return load_model(GOLDEN)


def test_replays_are_the_steps(model, recorded) -> None:
    """The final tokens, and what a callback kept of every step, which no later step may overwrite."""
    plain, plain_steps = rollout(model)
    assert not recorded
    graphed, graphed_steps = rollout(model, cuda_graph=True)
    assert len(recorded) == 1
    assert replays(model) == [3]
    for ours, theirs in zip((plain, *plain_steps), (graphed, *graphed_steps), strict=True):
        assert_equal(ours, theirs)


def test_a_graph_serves_the_next_rollout_of_its_shape(model, recorded) -> None:
    """Another prompt, guidance scale, tilt and weights in the same places; every one of its steps is a replay."""
    rollout(model, cuda_graph=True)
    with torch.no_grad():
        model.img_in.weight.mul_(1.5)
    other = {"words": 2, "cfg": 5.0, "log2_alpha": -1.0, "seed": 3}
    graphed, _ = rollout(model, cuda_graph=True, **other)
    assert len(recorded) == 1
    assert replays(model) == [3 + 4]
    assert_equal(graphed, rollout(model, **other)[0])


def test_a_model_keeps_two_graphs_and_weights_that_move_get_a_new_one(model, recorded) -> None:
    rollout(model, cuda_graph=True)
    refined, _ = rollout(model, cuda_graph=True, mode="i2d", cfg=1.0, rgb=torch.ones(2, 6, 32))
    assert_equal(refined, rollout(model, mode="i2d", cfg=1.0, rgb=torch.ones(2, 6, 32))[0])
    rollout(model, cuda_graph=True)
    assert len(recorded) == 2
    assert replays(model) == [3, 3 + 4]
    rollout(model, cuda_graph=True, grid=(1, 3))
    assert len(recorded) == 3
    assert replays(model) == [3 + 4, 3]

    model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()}, assign=True)
    graphed, _ = rollout(model, cuda_graph=True)
    assert len(recorded) == 4
    assert_equal(graphed, rollout(model)[0])


def test_another_back_end_gets_a_graph_of_its_own(model, recorded) -> None:
    """A graph replays the kernels that it was recorded with, so it may not serve a rollout that asks for others."""

    def host(q, k, v):
        """Values alone: not attention, so a graph that was recorded without it gives something else."""
        return v.transpose(1, 2).flatten(2)

    usual, _ = rollout(model, cuda_graph=True)
    with use_attention("reference"):
        rollout(model, cuda_graph=True)
        assert len(recorded) == 2
    with use_attention(host=host):
        graphed, _ = rollout(model, cuda_graph=True)
        assert len(recorded) == 3
        assert_equal(graphed, rollout(model)[0])
    assert not torch.equal(graphed[0], usual[0])
    with use_attention(host=host):
        rollout(model, cuda_graph=True)
    assert len(recorded) == 3


def test_pinned_choices_get_a_graph_of_their_own(model, recorded) -> None:
    rollout(model, cuda_graph=True)
    with pinned({"pin": "auto", "choices": {"attention float32 8: 2 x 2 x 16 x 16": "sdpa"}}):
        rollout(model, cuda_graph=True)
    assert len(recorded) == 2


def test_graphs_go_with_their_model(recorded) -> None:
    model = load_model(GOLDEN)
    rollout(model, cuda_graph=True)
    assert kept_graphs(model)
    assert not kept_graphs(copy.deepcopy(model))
    kept, there = weakref.ref(kept_graphs(model)[0]), weakref.ref(model)
    recorded[0].work = None  # the stand-in holds the work, and with it the model; a graph of CUDA's does not
    del model
    gc.collect()
    assert there() is None
    assert kept() is None


def test_without_a_gpu_the_steps_run_anyway(model, caplog) -> None:
    caplog.set_level(logging.INFO, "mforce")
    plain, _ = rollout(model)
    graphed, _ = rollout(model, cuda_graph=True)
    assert_equal(plain, graphed)
    assert [r.message for r in caplog.records] == ["The steps run without a CUDA graph: cpu devices have none."]
    assert not kept_graphs(model)


class Generator:
    """The default generator of a GPU, as far as captures touch it: a capture marks the state that it finds."""

    def __init__(self, state: SimpleNamespace | None = None) -> None:
        self.state = state or SimpleNamespace(capturing=False)

    def graphsafe_get_state(self) -> "Generator":
        return Generator(self.state)

    def graphsafe_set_state(self, other: "Generator") -> None:
        self.state = other.state

    def clone_state(self) -> "Generator":
        return Generator(SimpleNamespace(capturing=self.state.capturing))

    def draw(self) -> None:
        if self.state.capturing:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")


class FailingCuda:
    """Of ``torch.cuda``: a capture whose end raises, so that neither the mark nor the stream is taken back."""

    CUDAGraph = SimpleNamespace

    def __init__(self) -> None:
        self.default_generators = [Generator()]
        self.main = self.stream = SimpleNamespace(device_index=0)
        self.captures = 0

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        yield

    def Stream(self, device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(device_index=0)

    def current_stream(self, device: torch.device) -> SimpleNamespace:
        return self.stream

    def set_stream(self, stream: SimpleNamespace) -> None:
        self.stream = stream

    @contextmanager
    def graph(self, graph: object, *, stream: SimpleNamespace, capture_error_mode: str) -> Iterator[None]:
        self.captures += 1
        self.stream = stream
        self.default_generators[0].state.capturing = True
        try:
            yield
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def test_a_failed_capture_leaves_the_generator_and_the_stream_as_they_were(monkeypatch, caplog) -> None:
    cuda = FailingCuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    caplog.set_level(logging.INFO, "mforce")
    assert cuda_graph.record(lambda: (torch.zeros(1),), torch.device("cuda", 0)) is None
    assert cuda.captures == 1
    assert len(caplog.records) == 1
    assert cuda.stream is cuda.main
    cuda.default_generators[0].draw()


@needs_gpu
def test_on_a_gpu() -> None:
    model = load_model(GOLDEN, device="cuda")
    plain, plain_steps = rollout(model)
    graphed, graphed_steps = rollout(model, cuda_graph=True)
    assert replays(model) == [3]
    again, _ = rollout(model, cuda_graph=True)
    assert replays(model) == [3 + 4]
    for ours, theirs in zip((plain, *plain_steps, plain), (graphed, *graphed_steps, again), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@needs_gpu
def test_work_that_waits_for_the_device_has_no_graph_and_spoils_nothing(caplog) -> None:
    caplog.set_level(logging.INFO, "mforce")
    x, stream = torch.ones(1, device="cuda"), torch.cuda.current_stream()
    assert cuda_graph.record(lambda: (x * x.item(),), x.device) is None
    assert len(caplog.records) == 1
    assert torch.cuda.current_stream() == stream
    assert torch.randn(4, device="cuda").isfinite().all()
    graph, outputs = cuda_graph.record(lambda: (2 * x,), x.device)
    graph.replay()
    assert outputs[0].item() == 2
