"""Which back end runs: asked for, the host's, or by the rule for CPUs; what ran, and what cannot run."""

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kernel_evidence import DEVICE, needs_triton, runs
from mforce.kernels import (
    BackEndUnavailable,
    Modulation,
    PackedHeads,
    Segment,
    adaln,
    attention,
    back_end,
    candidate_names,
    choice,
    current_request,
    gated_residual,
    gated_residual_adaln,
    kernel_report,
    launches,
    pinned,
    qk_norm_rope,
    register,
    spec,
    swiglu,
    use_attention,
    what_ran,
)
from mforce.kernels.cache import cache_folder
from mforce.kernels.registry import BACK_ENDS, FLOATS, BackEnd, Call, Constraints, log_once
from mforce.kernels.spec import parse, scope

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
LONG = Call("attention", GPU, torch.bfloat16, 128, False, (1, 32, 2560, 2560))
SHORT = LONG._replace(sizes=(1, 32, 100, 100))
NAMES = ("triton", "sdpa", "sdpa_cudnn", "sdpa_flash")


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
    batch = call._replace(sizes=(8, 5))
    assert Constraints(max_batch=8).against(batch) is None
    assert Constraints(max_batch=7).against(batch) == "a batch of 8 is more than its 7"
    assert Constraints(max_batch=7).against(call) is None  # the sizes are symbols
    assert Constraints(devices=frozenset({"cuda"})).against(call) == "it does not run on cpu tensors"


def wide_batch(batch: int) -> dict[str, Callable[[], object]]:
    """Calls of every operation with a batch axis in its grid, of tensors without values."""
    x, vector = torch.empty(batch, 1, 4, device="meta"), torch.empty(batch, 4, device="meta")
    segments = [Segment(1, Modulation(vector, vector, vector))]
    packed = PackedHeads(torch.empty(batch, 1, 3, 1, 4, device="meta"), *torch.empty(2, 4, device="meta"))
    return {
        "adaln": lambda: adaln(x, segments),
        "gated_residual": lambda: gated_residual(x, x, segments),
        "gated_residual_adaln": lambda: gated_residual_adaln(x, x, segments, [segments[0].modulation]),
        "qk_norm_rope": lambda: qk_norm_rope([packed], torch.empty(2, 1, 2, device="meta")),
        "swiglu": lambda: swiglu(x),
    }


@pytest.mark.parametrize("op", wide_batch(1))
def test_a_batch_that_no_grid_of_triton_has(
    op: str, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """CUDA takes 65,535 programs on the second and third axis; the automatic choice then runs the reference."""
    ran: list[str] = []
    monkeypatch.setattr("mforce.kernels.triton._operators", SimpleNamespace(**{op: lambda *given: ran.append(op)}))
    with monkeypatch.context() as gpu:
        gpu.setattr(choice, "choose", lambda call, asked, passive: "triton")
        wide_batch(65_535)[op]()
        assert ran == [op]
        with runs("reference", op):
            wide_batch(65_536)[op]()
    assert ran == [op]
    assert log.messages == [f"{op} runs on its PyTorch reference: a batch of 65536 is more than its 65535."]
    with back_end("triton"), pytest.raises(BackEndUnavailable, match="a batch of 65536 is more than its 65535"):
        wide_batch(65_536)[op]()


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
    for damaged in ({}, {"pin": "auto"}, {"pin": None, "choices": {}}, {"pin": "auto", "choices": []}):
        with pytest.raises(ValueError, match="does not say which ran"), pinned(damaged):
            pass
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
