"""Which back end runs: asked for, the host's, by the CPU's rule or by measurement; what is kept on disk; threads."""

import json
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mforce.kernels import attention
from mforce.kernels.attention import attention_report, choice, dispatch, measure, scope, use_attention
from mforce.kernels.attention.cache import ChoiceFile, cache_folder
from mforce.kernels.attention.call import Call
from mforce.kernels.attention.choice import MeasuredChoice
from mforce.kernels.availability import log_once

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
LONG = Call(GPU, torch.bfloat16, 1, 32, 2560, 2560, 128, False)
SHORT = LONG._replace(query_length=100, key_length=100)


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


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the back ends that attention runs."""
    names: list[str] = []
    run = dispatch.attend

    def note(name: str, *arguments: object) -> torch.Tensor:
        names.append(name)
        return run(name, *arguments)

    monkeypatch.setattr(dispatch, "attend", note)
    return names


def tokens(length: int = 5, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, length, 2, 16).to(dtype) for _ in range(3)]


def test_measured_once_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "attention.json"
    timer = FakeTimer("triton")
    first = MeasuredChoice("H100, torch 2", ChoiceFile(file), timer)
    assert first.known(LONG) is None
    assert [first.best(LONG), first.best(LONG)] == ["triton", "triton"]
    assert timer.asked == 1
    # Sizes within a factor of two share the choice, others do not.
    assert first.best(LONG._replace(key_length=4096)) == "triton"
    assert timer.asked == 1
    timer.fastest = "sdpa_cudnn"
    assert first.best(SHORT) == first.best(LONG._replace(backward=True)) == "sdpa_cudnn"
    assert timer.asked == 3

    later = MeasuredChoice("H100, torch 2", ChoiceFile(file), FakeTimer("sdpa"))
    assert (later.best(LONG), later.best(SHORT)) == ("triton", "sdpa_cudnn")
    assert later.timer.asked == 0
    assert later.measured()[LONG.bucket]["seconds"]["triton"] == 1.0
    assert [path.name for path in file.parent.iterdir()] == ["attention.json"]


def test_another_version_or_device_measures_again(tmp_path: Path) -> None:
    file = ChoiceFile(tmp_path / "attention.json")
    MeasuredChoice("H100, torch 2.9", file, FakeTimer("triton")).best(LONG)
    newer = MeasuredChoice("H100, torch 2.10", file, FakeTimer("sdpa_flash"))
    assert newer.best(LONG) == "sdpa_flash"
    assert MeasuredChoice("H100, torch 2.9", file, FakeTimer("sdpa")).best(LONG) == "triton"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"revision": 1, "environments": 5}', '{"revision": 1, "environments": {"H100": {"x": {"a": 1}}}}'],
)
def test_a_corrupted_file_is_ignored_and_replaced(tmp_path: Path, content: str, log: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "attention.json"
    file.write_text(content)
    measured = MeasuredChoice("H100", ChoiceFile(file), FakeTimer("triton"))
    assert measured.best(LONG) == "triton"
    assert measured.best(SHORT) == "triton"
    assert len(log.records) == (0 if content.endswith("}}}}") else 1)
    stored = json.loads(file.read_text())["environments"]["H100"]
    assert stored[LONG.bucket]["choice"] == "triton"


def test_a_name_that_is_no_candidate_any_more_is_measured_again(tmp_path: Path) -> None:
    file = ChoiceFile(tmp_path / "attention.json")
    file.add("H100", LONG.bucket, {"choice": "sdpa_gone", "seconds": {"sdpa_gone": 1.0}})
    assert MeasuredChoice("H100", file, FakeTimer("triton")).best(LONG) == "triton"


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    measured = MeasuredChoice("H100", ChoiceFile(tmp_path / "file" / "attention.json"), FakeTimer("triton"))
    assert measured.best(LONG) == measured.best(SHORT) == "triton"
    assert len(log.records) == 1


def test_a_measurement_that_fails_is_not_kept(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    def no_memory(call: Call, names: Sequence[str]) -> dict[str, float]:
        raise torch.OutOfMemoryError("out of memory")

    file = tmp_path / "attention.json"
    measured = MeasuredChoice("H100", ChoiceFile(file), no_memory)
    assert measured.best(LONG) == measured.best(LONG) == "sdpa"
    assert not file.exists()
    assert "out of memory" in log.text


def test_threads_wait_for_one_measurement(tmp_path: Path) -> None:
    measured = MeasuredChoice("H100", ChoiceFile(tmp_path / "attention.json"), FakeTimer("triton", patience=0.1))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(measured.best, [LONG, SHORT] * 8))
    assert set(found) == {"triton"}
    assert measured.timer.asked == 2


def test_measuring_leaves_out_what_fails_or_disagrees(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    run = measure.attend
    monkeypatch.setattr(measure, "attend", lambda name, *rest: run(name, *rest) * (1.1 if name == "reference" else 1))
    state = torch.random.get_rng_state()
    call = Call(CPU, torch.float32, 1, 2, 20, 20, 16, True)
    with torch.inference_mode():
        times = measure.measure(call, ("sdpa", "sdpa_math", "sdpa_cudnn", "reference"))
    assert set(times) == {"sdpa", "sdpa_math"}
    assert all(seconds > 0 for seconds in times.values())
    assert torch.equal(state, torch.random.get_rng_state())
    lines = [record.message for record in log.records]
    assert len(lines) == 2
    assert "sdpa_cudnn is left out, it failed" in lines[0]
    assert "reference is left out, its result is off by 0.1" in lines[1]


def test_nothing_is_measured_while_tracing_or_capturing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timer = FakeTimer("triton")
    measured = MeasuredChoice("H100", ChoiceFile(tmp_path / "attention.json"), timer)
    monkeypatch.setattr(choice, "measured_choice", lambda device: measured)
    assert choice.automatic(LONG, passive=True) == "sdpa"
    assert timer.asked == 0
    assert choice.automatic(SHORT, passive=False) == "triton"
    timer.fastest = "sdpa_flash"
    assert choice.automatic(LONG, passive=False) == "sdpa_flash"
    # A captured step has its sizes; a compiled graph may serve all lengths: what won at the longest.
    assert choice.automatic(SHORT, passive=True) == "triton"
    traced = SHORT._replace(batch=0, heads=0, query_length=0, key_length=0)
    assert choice.automatic(traced, passive=True) == "sdpa_flash"
    assert choice.automatic(LONG._replace(dtype=torch.float16), passive=True) == "sdpa"


def test_other_devices_use_pytorchs_own() -> None:
    assert choice.automatic(LONG._replace(device=torch.device("mps")), passive=False) == "sdpa"


def test_the_rule_for_cpus(ran: list[str]) -> None:
    attention(*tokens())
    attention(*tokens(dtype=torch.bfloat16))
    attention(*(x.requires_grad_() for x in tokens()))
    attention(*(x.requires_grad_() for x in tokens(600)))
    assert ran == ["sdpa", "reference", "reference", "sdpa"]


def test_asking_by_argument_scope_and_environment(ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(scope.ENVIRONMENT_VARIABLE, " SDPA_flash ")
    monkeypatch.setattr(dispatch, "environment_choice", scope._from_environment())
    attention(*tokens())
    with use_attention("reference"):
        attention(*tokens())
        attention(*tokens(), backend="sdpa_math")
        with use_attention("auto"):
            attention(*tokens())
        attention(*tokens())
    attention(*tokens())
    assert ran == ["sdpa_flash", "reference", "sdpa_math", "sdpa", "reference", "sdpa_flash"]


def test_a_scope_ends_with_an_error_and_with_its_thread() -> None:
    with pytest.raises(ZeroDivisionError), use_attention("reference"):
        _ = 1 / 0
    assert scope.scope.backend is None
    seen = []
    with use_attention("reference", host=lambda q, k, v: q):
        thread = threading.Thread(target=lambda: seen.append((scope.scope.backend, scope.scope.host)))
        thread.start()
        thread.join()
    assert seen == [(None, None)]


def test_what_cannot_be_had_falls_back_with_one_line(ran: list[str], log: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        attention(*tokens(), backend="sdpa_cudnn")
        attention(*tokens(), backend="host")
    assert ran == ["sdpa"] * 6
    assert len(log.records) == 2
    assert "sdpa_cudnn was asked for, but it failed" in log.records[0].message
    assert "host was asked for, but no host has set a function" in log.records[1].message


def test_unknown_names(monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"no back end 'flash3': choose one of auto, triton, sdpa"):
        attention(*tokens(), backend="flash3")
    with pytest.raises(ValueError, match="no back end"):
        use_attention("flash3")
    monkeypatch.setenv(scope.ENVIRONMENT_VARIABLE, "flash3")
    assert scope._from_environment() == "auto"
    assert "MFORCE_ATTENTION is 'flash3'" in log.text


def test_the_hosts_function(ran: list[str]) -> None:
    """In its own layout, instead of the automatic choice, but not for gradients or over a name asked for."""
    shapes = []

    def host(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(q.shape))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    q, k, v = tokens()
    plain = attention(q, k, v, backend="sdpa_math")
    out = torch.full((1, 5, 40), torch.nan)[..., :32]
    with use_attention(host=host):
        assert attention(q, k, v, out=out) is out
        attention(q, k, v, backend="host")
        attention(q.clone().requires_grad_(), k, v)
        with use_attention("reference", host):
            attention(q, k, v)
    assert (out - plain).norm() < 1e-5 * plain.norm()
    assert ran[1:] == ["host", "host", "reference", "reference"]
    assert shapes == [(1, 2, 5, 16)] * 2


def test_cache_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    for platform, folder in (
        ("linux", Path("/x/mforce")),
        ("win32", Path("/local/mforce")),
        ("darwin", Path.home() / "Library" / "Caches" / "mforce"),
    ):
        monkeypatch.setattr("sys.platform", platform)
        assert cache_folder() == folder


def test_report() -> None:
    report = attention_report(CPU, torch.float32, 16)
    assert report.back_ends["sdpa"] is None
    assert report.back_ends["reference"] is None
    assert "failed" in report.back_ends["sdpa_cudnn"]
    assert set(report.back_ends) == set(choice.backends.NAMES)
    assert report.choices == {}
