"""Back ends chosen by measurement: what is measured, how long it may take, what is kept on disk; threads."""

import json
import logging
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mforce.kernels import (
    choice,
    pinned,
    timing,
    what_ran,
)
from mforce.kernels.cache import ChoiceFile
from mforce.kernels.measured import MeasuredChoice
from mforce.kernels.registry import BACK_ENDS, BackEnd, Call, log_once
from mforce.kernels.trials import median_seconds

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
LONG = Call("attention", GPU, torch.bfloat16, 128, False, (1, 32, 2560, 2560))
SHORT = LONG._replace(sizes=(1, 32, 100, 100))
NAMES = ("triton", "sdpa", "sdpa_cudnn", "sdpa_flash")


class FakeTimer:
    """Says that ``fastest`` is, and counts how often it is asked."""

    def __init__(self, fastest: str, patience: float = 0.0) -> None:
        self.fastest, self.patience, self.asked = fastest, patience, 0

    def __call__(self, call: Call, names: Sequence[str]) -> dict[str, float]:
        self.asked += 1
        time.sleep(self.patience)
        return {name: 1.0 if name == self.fastest else 2.0 for name in names}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    log_once.cache_clear()
    caplog.set_level(logging.INFO, "mforce.kernels")
    return caplog


def tokens(length: int = 5, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, length, 2, 16).to(dtype) for _ in range(3)]


def test_measured_once_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "kernels.json"
    timer = FakeTimer("triton")
    first = MeasuredChoice("H100, torch 2", ChoiceFile(file), timer)
    assert first.known(LONG) is None
    assert [first.best(LONG, NAMES), first.best(LONG, NAMES)] == ["triton", "triton"]
    assert timer.asked == 1
    # Sizes within a factor of two share the choice, others do not.
    assert first.best(LONG._replace(sizes=(1, 32, 2560, 4096)), NAMES) == "triton"
    assert timer.asked == 1
    timer.fastest = "sdpa_cudnn"
    assert first.best(SHORT, NAMES) == first.best(LONG._replace(gradient=True), NAMES) == "sdpa_cudnn"
    assert timer.asked == 3

    later = MeasuredChoice("H100, torch 2", ChoiceFile(file), FakeTimer("sdpa"))
    assert (later.best(LONG, NAMES), later.best(SHORT, NAMES)) == ("triton", "sdpa_cudnn")
    assert later.timer.asked == 0
    assert later.measured()[LONG.bucket]["seconds"]["triton"] == 1.0
    assert sorted(path.name for path in file.parent.iterdir()) == ["kernels.json", "kernels.json.lock"]


def test_another_version_or_device_measures_again(tmp_path: Path) -> None:
    file = ChoiceFile(tmp_path / "kernels.json")
    MeasuredChoice("H100, torch 2.9", file, FakeTimer("triton")).best(LONG, NAMES)
    newer = MeasuredChoice("H100, torch 2.10", file, FakeTimer("sdpa_flash"))
    assert newer.best(LONG, NAMES) == "sdpa_flash"
    assert MeasuredChoice("H100, torch 2.9", file, FakeTimer("sdpa")).best(LONG, NAMES) == "triton"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"revision": 2, "environments": 5}', '{"revision": 2, "environments": {"H100": {"x": {"a": 1}}}}'],
)
def test_a_corrupted_file_is_ignored_and_replaced(tmp_path: Path, content: str, log: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "kernels.json"
    file.write_text(content)
    measured = MeasuredChoice("H100", ChoiceFile(file), FakeTimer("triton"))
    assert measured.best(LONG, NAMES) == "triton"
    assert measured.best(SHORT, NAMES) == "triton"
    assert len(log.records) == (0 if content.endswith("}}}}") else 1)
    stored = json.loads(file.read_text())["environments"]["H100"]
    assert stored[LONG.bucket]["choice"] == "triton"


def test_a_name_that_is_no_candidate_any_more_is_measured_again(tmp_path: Path) -> None:
    file = ChoiceFile(tmp_path / "kernels.json")
    file.add("H100", LONG.bucket, {"choice": "sdpa_gone", "seconds": {"sdpa_gone": 1.0}})
    assert MeasuredChoice("H100", file, FakeTimer("triton")).best(LONG, NAMES) == "triton"


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    measured = MeasuredChoice("H100", ChoiceFile(tmp_path / "file" / "kernels.json"), FakeTimer("triton"))
    assert measured.best(LONG, NAMES) == measured.best(SHORT, NAMES) == "triton"
    assert len(log.records) == 1


@pytest.mark.parametrize("with_default", [True, False])
def test_a_measurement_that_fails_is_neither_kept_nor_tried_again(
    tmp_path: Path, log: pytest.LogCaptureFixture, with_default: bool
) -> None:
    names, default = (NAMES, "sdpa") if with_default else (("sdpa_flash", "sdpa_cudnn"), "sdpa_flash")
    asked = []

    def no_memory(call: Call, names: Sequence[str]) -> dict[str, float]:
        asked.append(call)
        raise torch.OutOfMemoryError("out of memory")

    file = tmp_path / "kernels.json"
    measured = MeasuredChoice("H100", ChoiceFile(file), no_memory)
    assert measured.best(LONG, names) == measured.best(LONG, names) == default
    assert len(asked) == 1
    assert not file.exists()
    assert "out of memory" in log.text


def test_threads_wait_for_one_measurement(tmp_path: Path) -> None:
    measured = MeasuredChoice("H100", ChoiceFile(tmp_path / "kernels.json"), FakeTimer("triton", patience=0.1))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda call: measured.best(call, NAMES), [LONG, SHORT] * 8))
    assert set(found) == {"triton"}
    assert measured.timer.asked == 2


#: What a process of the next test does: it says that it is there, waits until all are, and adds measurements.
ADDER = """
import sys
from pathlib import Path
from mforce.kernels.cache import ChoiceFile

file, name, count = ChoiceFile(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    file.add("H100", f"{name} {number}", {"choice": "triton", "seconds": {}})
"""


def test_processes_that_measure_at_once_lose_nothing(tmp_path: Path) -> None:
    file, count = tmp_path / "kernels.json", 40
    command = [sys.executable, "-c", ADDER, str(file)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    adders = {name: subprocess.Popen([*command, name, str(count)], **pipes) for name in ("first", "second")}
    for adder in adders.values():
        assert adder.stdout.readline() == "ready\n"
    for adder in adders.values():
        adder.stdin.write("\n")
        adder.stdin.flush()
    assert [adder.wait() for adder in adders.values()] == [0, 0]
    kept = ChoiceFile(file).read("H100")
    assert set(kept) == {f"{name} {number}" for name in adders for number in range(count)}


@pytest.mark.parametrize("error", [OSError("no locks available"), NotImplementedError("no flock")])
def test_a_disk_without_locks_keeps_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def no_locks(self: object) -> None:
        raise error

    monkeypatch.setattr("filelock.FileLock._acquire", no_locks)
    file = ChoiceFile(tmp_path / "kernels.json")
    file.add("H100", "any", {"choice": "triton", "seconds": {}})
    assert file.read("H100") == {"any": {"choice": "triton", "seconds": {}}}


def test_measuring_leaves_out_what_fails_or_disagrees(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    wrong = BACK_ENDS["attention"]["reference"].run
    off = BackEnd("reference", "attention", lambda *arguments: wrong(*arguments) * 1.1)
    monkeypatch.setitem(BACK_ENDS["attention"], "reference", off)
    state = torch.random.get_rng_state()
    call = Call("attention", CPU, torch.float32, 16, True, (1, 2, 20, 20))
    with torch.inference_mode():
        times = median_seconds(call, ("sdpa", "sdpa_math", "sdpa_cudnn", "reference"))
    assert set(times) == {"sdpa", "sdpa_math"}
    assert all(seconds > 0 for seconds in times.values())
    assert torch.equal(state, torch.random.get_rng_state())
    lines = [record.message for record in log.records]
    assert len(lines) == 2
    assert "sdpa_cudnn is left out, it failed" in lines[0]
    assert "reference is left out, its result is off by 0.1" in lines[1]


@pytest.mark.parametrize("op", ["adaln", "gated_residual_adaln", "qk_norm_rope"])
def test_every_operation_can_be_measured(op: str, log: pytest.LogCaptureFixture) -> None:
    """What two back ends of an operation give agrees on the inputs that the operation draws."""
    pytest.importorskip("comfy_kitchen")
    sizes = (2, 9, 2, 3) if op == "qk_norm_rope" else (2, 9, 2)
    with torch.no_grad():
        assert set(median_seconds(Call(op, CPU, torch.bfloat16, 16, False, sizes), ("kitchen", "reference"))) == {
            "kitchen",
            "reference",
        }
    assert not log.records


def test_a_race_runs_losers_twice_and_ends_with_its_budget() -> None:
    clocked: Counter[str] = Counter()
    seconds = {"fast": 1.0, "close": 1.75, "slow": 2.5}

    def clock(function: Callable[[], object], device: torch.device, repeats: int) -> float:
        name = str(function())
        clocked[name] += 1
        return seconds[name] * repeats

    functions = {name: (lambda name=name: name) for name in seconds}
    times = timing.race(functions, CPU, 5, 1e9, clock)
    assert clocked == {"fast": 5, "close": 5, "slow": 2}
    assert times == {"fast": [1.0] * 5, "close": [1.75] * 5, "slow": [2.5] * 2}
    clocked.clear()
    timing.race(functions, CPU, 5, 35.0, clock)
    assert clocked == {"fast": 3, "close": 3, "slow": 2}  # 15.75 seconds, as many again, then 8.25 more
    clocked.clear()
    timing.race(functions, CPU, 5, 15.0, clock)
    assert clocked == {"fast": 1, "close": 1, "slow": 1}


def test_a_race_forgives_one_disturbed_round() -> None:
    """On an H100 that other processes used, a kernel took 809 microseconds in its first round and was out."""
    rounds = {"fast": iter([809.0, 9.0, 9.0]), "other": iter([15.0] * 3)}

    def clock(function: Callable[[], object], device: torch.device, repeats: int) -> float:
        return next(rounds[str(function())]) * repeats

    times = timing.race({name: (lambda name=name: name) for name in rounds}, CPU, 3, 1e9, clock)
    assert times == {"fast": [809.0, 9.0, 9.0], "other": [15.0] * 3}


def test_nothing_is_measured_while_tracing_or_capturing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timer = FakeTimer("triton")
    measured = MeasuredChoice("H100", ChoiceFile(tmp_path / "kernels.json"), timer)
    monkeypatch.setattr(choice, "measured_choice", lambda device: measured)
    monkeypatch.setattr(choice, "candidates", lambda call: NAMES)
    assert choice.choose(LONG, "auto", passive=True) == "sdpa"
    assert timer.asked == 0
    assert choice.choose(SHORT, "auto", passive=False) == "triton"
    timer.fastest = "sdpa_flash"
    assert choice.choose(LONG, "auto", passive=False) == "sdpa_flash"
    # A captured step has its sizes; a compiled graph may serve all lengths: what won at the longest.
    assert choice.choose(SHORT, "auto", passive=True) == "triton"
    assert choice.choose(SHORT._replace(sizes=()), "auto", passive=True) == "sdpa_flash"
    assert choice.choose(LONG._replace(dtype=torch.float16), "auto", passive=True) == "sdpa"
    # The record says so, and a pinned run neither measures nor asks the file.
    record = what_ran()
    assert record["choices"][LONG.bucket] == "sdpa_flash"
    with pinned({"pin": "auto", "choices": {LONG.bucket: "sdpa"}}):
        assert choice.choose(LONG, "auto", passive=False) == "sdpa"
    assert choice.choose(LONG, "auto", passive=False) == "sdpa_flash"
    assert timer.asked == 2


def test_one_candidate_needs_no_measurement() -> None:
    assert choice.choose(LONG._replace(device=torch.device("mps")), "auto", passive=False) == "sdpa"
    assert choice.choose(Call("swiglu", torch.device("mps"), torch.float32, 8, False), "auto", False) == "reference"
