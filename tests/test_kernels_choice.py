"""Which back end runs: asked for, the host's, by the CPU's rule or by measurement; what is kept on disk; threads."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from kernel_evidence import DEVICE, needs_triton, runs
from mforce.kernels import (
    BackEndUnavailable,
    Modulation,
    Segment,
    adaln,
    attention,
    back_end,
    candidate_names,
    choice,
    current_request,
    kernel_report,
    launches,
    pinned,
    register,
    spec,
    swiglu,
    timing,
    use_attention,
    what_ran,
)
from mforce.kernels.cache import ChoiceFile, cache_folder
from mforce.kernels.measured import MeasuredChoice
from mforce.kernels.registry import BACK_ENDS, FLOATS, BackEnd, Call, Constraints, log_once
from mforce.kernels.spec import parse, scope
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


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Set a variable as if the process had started with it."""

    def start_with(variable: str, value: str) -> None:
        monkeypatch.setenv(variable, value)
        spec.environment_spec.cache_clear()

    yield start_with
    monkeypatch.undo()
    spec.environment_spec.cache_clear()


def tokens(length: int = 5, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, length, 2, 16).to(dtype) for _ in range(3)]


def names_that_ran(run: Callable[[], object]) -> list[str]:
    """Back ends of attention that ``run`` ran."""
    before = launches()
    run()
    return [name for (op, name), times in (launches() - before).items() for _ in range(times) if op == "attention"]


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
    assert [path.name for path in file.parent.iterdir()] == ["kernels.json"]


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


def test_a_race_runs_losers_once_and_ends_with_its_budget() -> None:
    clocked: Counter[str] = Counter()
    seconds = {"fast": 1.0, "close": 1.75, "slow": 2.5}

    def clock(function: Callable[[], object], device: torch.device, repeats: int) -> float:
        name = str(function())
        clocked[name] += 1
        return seconds[name] * repeats

    functions = {name: (lambda name=name: name) for name in seconds}
    times = timing.race(functions, CPU, 5, 1e9, clock)
    assert clocked == {"fast": 5, "close": 5, "slow": 1}
    assert times == {"fast": [1.0] * 5, "close": [1.75] * 5, "slow": [2.5]}
    clocked.clear()
    timing.race(functions, CPU, 5, 20.0, clock)
    assert clocked == {"fast": 2, "close": 2, "slow": 1}  # 15.75 seconds, then 8.25 more


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


def test_the_rule_for_cpus() -> None:
    assert names_that_ran(lambda: attention(*tokens())) == ["sdpa"]
    assert names_that_ran(lambda: attention(*tokens(dtype=torch.bfloat16))) == ["reference"]
    assert names_that_ran(lambda: attention(*(x.requires_grad_() for x in tokens()))) == ["reference"]
    assert names_that_ran(lambda: attention(*(x.requires_grad_() for x in tokens(600)))) == ["sdpa"]


def test_asking_by_argument_block_and_environment(environment: Callable[[str, str], None]) -> None:
    def ran(**options: str) -> list[str]:
        return names_that_ran(lambda: attention(*tokens(), **options))

    environment("MFORCE_KERNELS", " auto, attention = SDPA_flash ")
    assert ran() == ["sdpa_flash"]
    with use_attention("reference"):
        assert ran() == ["reference"]
        assert ran(backend="sdpa_math") == ["sdpa_math"]
        with use_attention("auto"):
            assert ran() == ["sdpa"]
        with back_end("attention=sdpa_math"):
            assert ran() == ["sdpa_math"]
        assert ran() == ["reference"]
    assert ran() == ["sdpa_flash"]
    environment("MFORCE_KERNELS", "reference")
    assert ran() == ["reference"]
    with back_end("auto"):
        assert ran() == ["sdpa"]


def test_one_variable_turns_everything_off(environment: Callable[[str, str], None]) -> None:
    environment("MFORCE_KERNELS", "reference")
    before = launches()
    attention(*tokens())
    swiglu(torch.randn(1, 2, 4))
    assert launches() - before == Counter({("attention", "reference"): 1, ("swiglu", "reference"): 1})
    for report in kernel_report(CPU).values():
        assert (report.runs_on, report.reason) == ("reference", "asked for")


@pytest.mark.parametrize(("kernels", "expected"), [("auto", "sdpa_math"), ("attention=reference", "reference")])
def test_the_old_variable_is_read_with_a_note(
    environment: Callable[[str, str], None], log: pytest.LogCaptureFixture, kernels: str, expected: str
) -> None:
    environment("MFORCE_ATTENTION", "sdpa_math")
    environment("MFORCE_KERNELS", kernels)
    assert names_that_ran(lambda: attention(*tokens())) == [expected]
    (record,) = log.records
    assert record.message == "MFORCE_ATTENTION is deprecated: use MFORCE_KERNELS=attention=sdpa_math."


def test_specifications() -> None:
    assert set(parse("").values()) == {"auto"}
    assert set(parse("reference").values()) == {"reference"}
    # A name asks for every operation that has it and leaves the others as they were; later items win.
    kitchen = {"adaln": "kitchen", "gated_residual_adaln": "kitchen", "qk_norm_rope": "kitchen"}
    assert parse("triton,kitchen") == {**parse("triton"), **kitchen}
    assert parse("attention=sdpa,triton")["attention"] == "triton"
    assert set(parse("triton,attention=sdpa,auto").values()) == {"auto"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("cuda", "no operation has a back end 'cuda': choose one of auto, reference, triton"),
        ("attention=kitchen", "attention has no back end 'kitchen': choose one of auto, reference, triton, sdpa"),
        ("softmax=triton", "there is no operation 'softmax': choose one of adaln"),
    ],
    ids=["name", "name of another operation", "operation"],
)
def test_unknown_names(asked: str, message: str, environment: Callable[[str, str], None]) -> None:
    with pytest.raises(ValueError, match=message):
        back_end(asked)
    environment("MFORCE_KERNELS", asked)
    for run in (lambda: swiglu(torch.randn(1, 2, 4)), current_request):
        with pytest.raises(ValueError, match=f"^MFORCE_KERNELS={asked}: {message}"):
            run()


def test_an_unknown_attention() -> None:
    for ask in (lambda: attention(*tokens(), backend="flash3"), lambda: use_attention("flash3")):
        with pytest.raises(ValueError, match=r"attention has no back end 'flash3': choose one of auto, reference"):
            ask()


def test_a_block_ends_with_an_error_and_with_its_thread() -> None:
    with pytest.raises(ZeroDivisionError), use_attention("reference"), back_end("triton"):
        _ = 1 / 0
    assert (scope.spec, scope.host) == ("", None)
    seen = []
    with use_attention("reference", host=lambda q, k, v: q):
        thread = threading.Thread(target=lambda: seen.append((scope.spec, scope.host)))
        thread.start()
        thread.join()
    assert seen == [("", None)]


def test_what_is_asked_for_by_name_and_cannot_run_raises() -> None:
    before = launches()
    for _ in range(2):
        with pytest.raises(BackEndUnavailable, match="attention was asked to run on sdpa_cudnn, but it failed"):
            attention(*tokens(), backend="sdpa_cudnn")
        with pytest.raises(BackEndUnavailable, match="on host, but no program that runs the model has set a function"):
            attention(*tokens(), backend="host")
    with back_end("kitchen"), pytest.raises(BackEndUnavailable, match="it has no gradient"):
        adaln(torch.randn(1, 1, 4, requires_grad=True), [Segment(1, Modulation(*torch.zeros(2, 1, 4)))])
    assert not launches() - before


def test_a_compiler_is_told_too() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda q, k, v: attention(q, k, v, backend="host"), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="attention was asked to run on host, but no program"):
        compiled(*tokens())


def test_constraints() -> None:
    call = Call("swiglu", CPU, torch.float32, 100, True)
    assert Constraints().against(call) is None
    assert Constraints(dtypes=frozenset({torch.bfloat16})).against(call) == "it has no float32"
    assert Constraints(max_width=99).against(call) == "100 channels are more than its 99"
    assert Constraints(gradient=False).against(call) == "it has no gradient"
    assert Constraints(devices=frozenset({"cuda"})).against(call) == "it does not run on cpu tensors"


def test_an_old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turing: Triton has no tensor-core code for it."""
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    problem = BACK_ENDS["attention"]["triton"].problem(LONG)
    assert problem == "the GPU has compute capability 7.5, it needs 8.0"


def test_the_hosts_function() -> None:
    """In its own layout, instead of the automatic choice, but not for gradients or over a name asked for."""
    shapes = []

    def host(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(q.shape))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    q, k, v = tokens()
    plain = attention(q, k, v, backend="sdpa_math")
    out = torch.full((1, 5, 40), torch.nan)[..., :32]
    with use_attention(host=host), runs("host", "attention"):
        assert attention(q, k, v, out=out) is out
        attention(q, k, v, backend="host")
    with use_attention(host=host), runs("reference", "attention"):
        attention(q.clone().requires_grad_(), k, v)
        with use_attention("reference", host):
            attention(q, k, v)
    assert (out - plain).norm() < 1e-5 * plain.norm()
    assert shapes == [(1, 2, 5, 16)] * 2


def test_what_ran_can_be_pinned() -> None:
    before = launches()
    with back_end("attention=sdpa_math"):
        attention(*tokens())
        attention(*tokens())
    swiglu(torch.randn(1, 2, 4))
    record = json.loads(json.dumps(what_ran(since=before)))
    assert record["launches"] == {"attention": {"sdpa_math": 2}, "swiglu": {"reference": 1}}
    assert set(record["versions"]) == {"torch", "triton", "xformers", "comfy-kitchen"}
    assert record["pin"] == "auto,attention=sdpa_math,swiglu=reference"
    with back_end("attention=sdpa"), pinned(record), runs("sdpa_math", "attention"):
        attention(*tokens())
    assert scope.choices == {}
    # Two back ends of one operation, as the sizes told: it stays automatic.
    attention(*tokens())
    assert what_ran(since=before)["pin"] == "auto,swiglu=reference"


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
    report = kernel_report(CPU, torch.float32)["attention"]
    assert report.back_ends["sdpa"] is None
    assert report.back_ends["reference"] is None
    assert "failed" in str(report.back_ends["sdpa_cudnn"])
    assert "no program that runs the model" in str(report.back_ends["host"])
    assert set(report.back_ends) == set(BACK_ENDS["attention"])
    assert report.measured == {}


def test_the_list_that_people_choose_from() -> None:
    """The order of the node's widget, which saved workflows rely on."""
    assert candidate_names("attention") == ["triton", "sdpa", "sdpa_cudnn", "sdpa_flash", "sdpa_efficient", "xformers"]


def test_a_new_back_end_is_one_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be asked for, is reported, counted, offered to people, and chosen among on a GPU."""
    monkeypatch.setattr(spec, "parse", spec.parse.__wrapped__)
    monkeypatch.setitem(BACK_ENDS, "attention", dict(BACK_ENDS["attention"]))
    reference = BACK_ENDS["attention"]["reference"].run
    register(BackEnd("flash9", "attention", reference, Constraints(dtypes=FLOATS), candidate=True))
    with runs("flash9", "attention"):
        attention(*tokens(), backend="flash9")
    with back_end("flash9"), pytest.raises(BackEndUnavailable, match="on flash9, but it has no float64"):
        attention(*(x.double() for x in tokens()))
    assert kernel_report(CPU)["attention"].back_ends["flash9"] is None
    assert candidate_names("attention")[-1] == "flash9"
    choice.candidates.cache_clear()
    try:
        assert "flash9" in choice.candidates(LONG._replace(device=torch.device("mps")))
    finally:
        choice.candidates.cache_clear()


@needs_triton
def test_the_probe_runs_on_the_gpu_of_its_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current GPU: ``--device cuda:1`` would otherwise probe the first one."""
    from mforce.kernels.triton import probe

    entered = []
    device_of = torch.cuda.device_of
    monkeypatch.setattr(torch.cuda, "device_of", lambda tensor: entered.append(tensor) or device_of(tensor))
    probe.launch(DEVICE)
    assert len(entered) == 1
    assert entered[0].sum() == 32


@needs_triton
def test_kernels_run_on_the_gpu_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    from mforce.kernels.triton import launching

    order: list[object] = []

    @contextmanager
    def device_of(tensor: torch.Tensor) -> Iterator[None]:
        order.append(tensor)
        yield
        order.append("left")

    class Kernel:
        fn = device_of

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *arguments, **constants: order.append("launched")

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    beside = torch.ones(1, device=DEVICE)
    launching.launch(Kernel(), (1,), beside)
    assert order[0] is beside
    assert order[1:] == ["launched", "left"]
