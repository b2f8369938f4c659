"""mforce bench on tiny sizes: what the report holds and how it is shown; times are not looked at."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("typer")

from typer.testing import CliRunner

from mforce.benchmarks import denoise_step, formulations, kernels, op_by_op, rollout, suite, timing
from mforce.benchmarks.subjects import Subject, subject
from mforce.benchmarks.tables import print_report
from mforce.benchmarks.targets import targets
from mforce.cli.app import app
from mforce.mforce_core import sample
from mforce.mforce_core.model.config import Architecture

CPU = torch.device("cpu")
TINY = Subject(
    "tiny",
    Architecture(
        in_channels=8,
        depth_channels=16,
        context_in_dim=16,
        hidden_size=64,
        num_heads=2,
        depth_double=1,
        depth_single=2,
        depth_decoder_num_layers=1,
        axes_dim=(8, 8, 8, 8),
    ),
    text=5,
    grid=(2, 3),
)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("lapped", [False, True])
def test_both_formulations_compute_the_same(lapped: bool) -> None:
    """Cross-stream mixing included: its gates are zero in a fresh model."""
    tiny = TINY._replace(architecture=replace(TINY.architecture, depth_lapped=lapped))
    model = tiny.model(CPU, torch.float32)
    for gate in (model.cross_alpha_img, model.cross_alpha_depth):
        gate.fill_(0.7)
    runs = formulations.steps(tiny, model, CPU)
    for ours, theirs in zip(runs["mforce"](), runs["op_by_op"](), strict=True):
        assert relative(ours, theirs) < 1e-5


def test_both_rollouts_compute_the_same() -> None:
    model = TINY.model(CPU, torch.float32)
    rgb, depth, text = TINY.inputs(CPU)
    null_text = torch.randn_like(text)
    ours = sample(
        model, text, TINY.grid, steps=3, cfg=rollout.CFG["joint"], log2_alpha=rollout.LOG2_ALPHA, null_text=null_text,
        noise=(rgb, depth),
    )  # fmt: skip
    theirs = rollout._op_by_op(model, TINY, (rgb, depth), text, null_text, 3)
    assert all(relative(a, b) < 1e-5 for a, b in zip(ours, theirs, strict=True))


def test_kernel_rows() -> None:
    """Every hand that can run agrees with the others: a wrong one would have a problem."""
    rows = kernels.measure_kernels(TINY, CPU, torch.float32, 2, copy_rate=1e9, compiled=False)
    json.dumps(rows)
    by = {(row["kernel"], row["pass"], row["name"]): row for row in rows}
    assert len(by) == len(rows)
    for name in ("adaln", "gated_residual", "gated_residual_adaln", "qk_norm_rope", "swiglu"):
        for step in ("forward", "backward"):
            for hand in ("mforce", "op_by_op", "copy"):
                row = by[name, step, hand]
                assert "problem" not in row, row
                assert row["bytes_per_second"] == pytest.approx(row["bytes"] / row["seconds"]["median"])
                assert row["of_copy"] == pytest.approx(row["bytes_per_second"] / 1e9)
    part = TINY.tokens * 64 * 4
    assert by["adaln", "forward", "mforce"]["bytes"] == 2 * part
    assert by["gated_residual_adaln, two modulations", "forward", "mforce"]["bytes"] == 4 * part
    for row in rows:
        assert "problem" not in row or row["name"].startswith("comfy_kitchen"), row


def test_a_wrong_result_is_no_measurement(monkeypatch) -> None:
    monkeypatch.setattr(op_by_op, "modulate", lambda x, shift, scale: x * scale + shift)
    rows = kernels.measure_kernels(TINY, CPU, torch.float32, 1, copy_rate=1e9, compiled=False)
    found = next(row for row in rows if (row["kernel"], row["pass"], row["name"]) == ("adaln", "forward", "mforce"))
    assert "off by" in found["problem"]
    assert "seconds" not in found


def test_operations_of_the_published_model() -> None:
    """Counted by hand: 13 C^2 weights a token in every block, the embeddings, outputs and modulations beside them."""
    products, attention = denoise_step.operations(subject("12b-v2"))
    size, tokens, image, text = 4096, 2560, 1024, 512
    blocks = 13 * size**2 * (tokens * (8 + 24) + image * 4)
    ends = size * (image * (128 + 256) * 2 + text * 12288)
    vectors = size * (4 * (256 + size) + 6 * 3 * size + 3 * 3 * size + 2 * 2 * size)
    assert products == 2 * (blocks + ends + vectors)
    assert attention == 4 * size * (32 * tokens**2 + 4 * image**2)


class Device:
    """A GPU that takes 1 a write and 2 a kernel, and Python that takes 10 to launch it: what events would say."""

    def __init__(self) -> None:
        self.python, self.idle_from, self.launched = 0.0, 0.0, 0

    def work(self, seconds: float) -> None:
        self.idle_from = max(self.idle_from, self.python) + seconds

    def kernel(self) -> None:
        self.launched += 1
        self.python += 10
        self.work(2)

    def event(self, enable_timing: bool) -> "Device.Event":
        return self.Event(self)

    class Event:
        def __init__(self, device: "Device") -> None:
            self.device = device

        def record(self) -> None:
            self.device.work(0)
            self.at = self.device.idle_from

        def query(self) -> bool:
            return self.device.python >= self.at

        def synchronize(self) -> None:
            self.device.python = max(self.device.python, self.at)

        def elapsed_time(self, end: "Device.Event") -> float:
            return (end.at - self.at) * 1e3


@pytest.mark.parametrize(("queued", "seconds", "runs"), [(False, [11.0, 11.0], 2), (True, [2.0, 2.0], 6)])
def test_launches_are_queued_before_the_device_begins(
    queued: bool, seconds: list[float], runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind 16 writes Python is ready in time; a later round of the same run begins with as many."""
    gpu = Device()
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(timing, "_flush_buffer", lambda device: SimpleNamespace(zero_=lambda: gpu.work(1)))
    clock = timing.cuda_clock(torch.device("cuda", 0), queued)
    assert [clock(gpu.kernel) for _ in range(2)] == seconds
    assert gpu.launched == runs


def test_what_waits_for_the_device_is_timed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Device()
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(timing, "_flush_buffer", lambda device: SimpleNamespace(zero_=lambda: gpu.work(1)))

    def waits() -> None:
        gpu.kernel()
        gpu.python = gpu.idle_from

    assert timing.cuda_clock(torch.device("cuda", 0), True)(waits) == 2
    assert gpu.launched == 8  # behind 1, 2, 4 ... 128 writes


def test_a_gpu_without_a_number_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """``set_device`` takes no device without one, which only a machine with a GPU would notice."""
    devices: list[torch.device] = []

    def stop(device: torch.device, *_: object) -> None:
        devices.append(device)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: devices.append(torch.device("cuda", device.index)))
    monkeypatch.setattr(suite.machine, "ceilings", stop)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(KeyboardInterrupt):
            next(suite.measure_machine("step", TINY, torch.device(name), torch.float32))
    assert devices == [torch.device("cuda", index) for index in (1, 1, 0, 0)]


def test_python_time() -> None:
    """In a process of its own, where Triton's launches do nothing."""
    pytest.importorskip("triton")
    run = subprocess.run(
        [sys.executable, "-m", "mforce.benchmarks.python_time"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    rows = {row.pop("kernel"): row for row in map(json.loads, run.stdout.splitlines())}
    assert rows["adaln"].keys() == rows["swiglu"].keys() == {"inference", "forward", "backward"}
    assert rows["adaln, two modulations"].keys() == {"inference"}
    assert all(value > 0 for row in rows.values() for value in row.values())


def test_report_and_command(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(suite._STEPS, "cpu", 1)
    arguments = ["bench", "all", "--architecture", "nano", "--dtype", "float32", "--device", "cpu", "--repeats", "1"]
    result = CliRunner().invoke(app, [*arguments, "--no-compile", "--json", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (file,) = tmp_path.glob("*.json")
    report = json.loads(file.read_text(encoding="utf-8"))
    assert {"torch", "triton", "date", "command", "device", "threads"} <= report["machine"].keys()
    assert report["ceilings"]["copy_bytes_per_second"] > 0
    step = report["step"]
    assert step["tokens"] == [16, 64, 64]
    assert [row["name"] for row in step["formulations"]] == ["mforce", "op_by_op"]
    floor = step["floor"]
    assert floor["seconds"] == pytest.approx(
        floor["matmul_operations"] / floor["matmul_operations_per_second"]
        + floor["attention_operations"] / floor["attention_operations_per_second"]
    )
    for row in step["formulations"]:
        assert row["times_floor"] == pytest.approx(row["seconds"]["median"] / floor["seconds"])
        assert row["peak_bytes"] > 0
    assert [row["name"] for row in report["rollout"]["formulations"]] == ["mforce", "op_by_op"]
    assert report["targets"] == []  # they are about a GPU and the 12 B model
    training = report["training"]
    assert [row["name"] for row in training["formulations"]] == ["mforce", "plain"]
    assert training["tokens"] == training["batch_size"] * (16 + 64 + 64)
    for row in training["formulations"]:
        assert row["tokens_per_second"] == pytest.approx(training["tokens"] / row["seconds"]["median"])
        rate = row["model_flops_utilization"] * report["ceilings"]["matmul_operations_per_second"]
        assert rate * row["seconds"]["median"] == pytest.approx(training["operations"])
    for shown in ("qk_norm_rope", "op_by_op", "sdpa", "one denoise step", "rollout of 1 steps", "one training step"):
        assert shown in result.output


def test_targets(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    report = {
        "architecture": "12b-v2", "dtype": "bfloat16", "repeats": 1,
        "machine": {"device": "a GPU", "capability": "9.0", "torch": "2"},
        "ceilings": {"copy_bytes_per_second": 4e12, "matmul_operations_per_second": 7e14},
        "kernels": [
            _kernel_row("gated_residual_adaln", "mforce", 0.9, 1.0),
            _kernel_row("gated_residual_adaln", "comfy_kitchen", 0.5, 1.4),
            {"kernel": "adaln", "pass": "forward", "name": "comfy_kitchen", "problem": "ImportError: it is missing"},
        ],
        "step": {"problem": "OutOfMemoryError: CUDA out of memory."},
    }  # fmt: skip
    report["targets"] = targets(report)
    assert [(row["measured"], row["met"]) for row in report["targets"]] == [(0.9, True), (1.4, False)]
    print_report(report)
    shown = capsys.readouterr().out
    assert "it is missing" in shown
    assert "CUDA out of memory" in shown


def _kernel_row(kernel: str, name: str, of_copy: float, times_ours: float) -> dict:
    seconds = dict.fromkeys(("median", "lower_quartile", "upper_quartile"), 1e-5)
    return {
        "kernel": kernel, "pass": "forward", "name": name, "bytes": 1, "seconds": seconds, "bytes_per_second": 1e5,
        "of_copy": of_copy, "times_ours": times_ours,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["everything"], "nothing called 'everything' to measure"),
        (["step", "--architecture", "13b"], "no architecture '13b'"),
        (["step", "--dtype", "int8"], "--dtype must be"),
        (["step", "--json", "/nowhere/at/all.json"], "The folder of"),
    ],
)
def test_refusals(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments, "--device", "cpu"])
    assert result.exit_code == 2
    assert message in result.output


def test_sections() -> None:
    assert suite.sections_of("all") == suite.SECTIONS
    assert suite.sections_of("step") == ("step",)
