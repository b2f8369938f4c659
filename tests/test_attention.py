"""Every back end against float64: Triton natively where there is a GPU, through its interpreter where there is none."""

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_evidence import DEVICE, needs_triton, runs
from mforce.kernels import attention, use_attention

TRITON = pytest.param("triton", marks=needs_triton)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@pytest.fixture(autouse=True)
def evidence(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test of Triton, or a test without compilation of another back end, fails unless that one ran."""
    backend = getattr(request.node, "callspec", None) and request.node.callspec.params.get("backend")
    if backend == "triton" or (backend not in (None, "auto") and "graph" not in request.node.name):
        with runs(backend, "attention"):
            yield
    else:
        yield


def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Softmax written out in float64."""
    scores = torch.einsum("bqhd,bkhd->bhqk", q.double(), k.double()) / q.shape[-1] ** 0.5
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v.double()).flatten(2)


def relative(ours: torch.Tensor, right: torch.Tensor) -> float:
    return float((ours.double() - right).norm() / right.norm().clamp(min=1e-30))


def draw(
    batch: int, queries: int, keys: int, heads: int, features: int, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(batch, length, heads, features) for length in (queries, keys, keys)]
    return [torch.randn(shape, device=DEVICE).to(dtype).requires_grad_() for shape in shapes]


def errors(inputs: list[torch.Tensor], backend: str) -> list[float]:
    """Of the result and of the gradients of q, k, v, relative to float64."""
    out = attention(*inputs, backend=backend)
    right = exact(*inputs)
    slope = torch.randn_like(out)
    with runs(backend, *(("attention_backward",) if backend == "triton" else ())):
        ours = torch.autograd.grad(out, inputs, slope)
    theirs = torch.autograd.grad(right, inputs, slope.double())
    pairs = [(out.detach(), right.detach()), *zip(ours, theirs, strict=True)]
    return [relative(found, wanted.double()) for found, wanted in pairs]


@pytest.mark.parametrize("backend", [TRITON, "sdpa", "sdpa_math", "reference"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("batch", "queries", "keys", "heads", "features"),
    [(2, 17, 17, 2, 16), (1, 130, 130, 1, 40), (1, 2, 130, 1, 64), (1, 130, 17, 1, 128), (1, 17, 70, 1, 256)],
)
def test_values_and_gradients(
    batch: int, queries: int, keys: int, heads: int, features: int, dtype: torch.dtype, backend: str
) -> None:
    inputs = draw(batch, queries, keys, heads, features, dtype)
    assert all(error < TOLERANCE[dtype] for error in errors(inputs, backend))  # NaN is in no maximum


@pytest.mark.parametrize("backend", [TRITON, "sdpa", "reference", "auto"])
def test_one_token_returns_its_value(backend: str) -> None:
    """The softmax of one score is 1. A kernel that divides by the sum, or takes an exponential of the score less its
    logarithm, comes within roundings of that: not every back end gives the value's own bits."""
    q, k, v = draw(2, 1, 1, 3, 16)
    out = attention(q, k, v, backend=backend)
    grads = torch.autograd.grad(out.sum(), (q, k, v))
    roundings = 16 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(out, v.flatten(2), rtol=roundings, atol=0)
    torch.testing.assert_close(grads[2], torch.ones_like(v), rtol=roundings, atol=0)
    assert all(grad.abs().max() < 1e-5 for grad in grads[:2])


@needs_triton
@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 3),
    queries=st.integers(1, 80),
    keys=st.integers(1, 80),
    heads=st.integers(1, 3),
    features=st.integers(1, 40),
)
def test_any_shape_on_triton(batch: int, queries: int, keys: int, heads: int, features: int) -> None:
    inputs = [x.detach() for x in draw(batch, queries, keys, heads, features)]
    with runs("triton", "attention"):
        found = attention(*inputs, backend="triton")
    assert relative(found, exact(*inputs)) < 1e-5


@pytest.mark.parametrize("backend", [TRITON, "sdpa", "reference"])
def test_strided_inputs_into_a_strided_output(backend: str) -> None:
    """q, k, v as views of what one Linear wrote, the result into the left part of a buffer, every element of it."""
    packed = torch.randn(2, 33, 3 * 2 * 24 + 8, device=DEVICE)
    q, k, v = packed[..., :-8].unflatten(-1, (3, 2, 24)).unbind(2)
    buffer = torch.full((2, 33, 48 + 12), torch.nan, device=DEVICE)
    out = attention(q, k, v, out=buffer[..., :48], backend=backend)
    assert out.data_ptr() == buffer.data_ptr()
    assert relative(buffer[..., :48], exact(q, k, v)) < 1e-5
    assert buffer[..., 48:].isnan().all()
    # A last axis with steps, and heads before tokens.
    transposed = torch.randn(3, 2, 2, 24, 33, device=DEVICE).permute(0, 1, 4, 2, 3)
    assert relative(attention(*transposed, backend=backend), exact(*transposed)) < 1e-5


@pytest.mark.parametrize("backend", [TRITON, "sdpa", "reference"])
def test_strided_gradients(backend: str) -> None:
    """The gradient of a transposed sum arrives expanded, that of a packed Linear leaves strided."""
    packed = torch.randn(2, 9, 3, 2, 16, device=DEVICE, requires_grad=True)
    weight = torch.randn(9, 1, device=DEVICE)
    found = torch.autograd.grad((attention(*packed.unbind(2), backend=backend) * weight).sum(), packed)[0]
    wanted = torch.autograd.grad((exact(*packed.unbind(2)) * weight).sum(), packed)[0]
    assert relative(found, wanted.double()) < 1e-5


def test_out_is_left_alone_where_a_gradient_is_needed() -> None:
    q, k, v = draw(1, 4, 4, 1, 16)
    out = torch.full((1, 4, 16), torch.nan, device=DEVICE)
    found = attention(q, k, v, out=out)
    assert out.isnan().all()
    assert found.requires_grad


@pytest.mark.parametrize("shape", [(0, 5, 5), (2, 0, 5), (2, 5, 0)])
def test_nothing_to_attend(shape: tuple[int, int, int]) -> None:
    q, k, v = draw(*shape, heads=2, features=16)
    found = attention(q, k, v)
    assert found.shape == (shape[0], shape[1], 32)
    assert (found == 0).all()
    assert all((grad == 0).all() for grad in torch.autograd.grad(found.sum(), (q, k, v)))
    of_values_alone = attention(q.detach(), k.detach(), v)
    assert (torch.autograd.grad(of_values_alone.sum(), v)[0] == 0).all()
    out = torch.full_like(found, torch.nan)
    with torch.no_grad():
        assert attention(q, k, v, out=out) is out
    assert (out == 0).all()


@pytest.mark.parametrize("backend", [TRITON, "sdpa", "reference"])
def test_large_scores_do_not_overflow(backend: str) -> None:
    inputs = [x.detach() * 60 for x in draw(1, 40, 70, 1, 32)]
    assert relative(attention(*inputs, backend=backend), exact(*inputs)) < 1e-4


@pytest.mark.parametrize("backend", [TRITON, "reference"])
def test_gradients_where_all_scores_are_far_below_zero(backend: str) -> None:
    """Padding beyond the last key has the score 0, far above every true one, and still no weight."""
    q, k, v = (x.detach() for x in draw(1, 40, 70, 1, 32))
    inputs = [(6 + q).requires_grad_(), (-20 + k).requires_grad_(), v.requires_grad_()]
    found = errors(inputs, backend)
    assert all(error < 1e-3 for error in found), found


@needs_triton
def test_the_backward_pass_is_deterministic() -> None:
    inputs = draw(1, 70, 70, 2, 16)
    slope = torch.randn(1, 70, 32, device=DEVICE)
    with runs("triton", "attention", "attention_backward"):
        grads = [torch.autograd.grad(attention(*inputs, backend="triton"), inputs, slope) for _ in range(2)]
    assert all(torch.equal(first, second) for first, second in zip(*grads, strict=True))


@needs_triton
@pytest.mark.parametrize("features", [16, 24])
def test_every_element_is_written(features: int) -> None:
    """Fresh memory holds NaN here."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        assert torch.empty(2, device=DEVICE).isnan().all()
        inputs = draw(2, 33, 70, 2, features)
        with runs("triton", "attention", "attention_backward"):
            out = attention(*inputs, backend="triton")
            grads = torch.autograd.grad(out.sum(), inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(x.isfinite().all() for x in (out, *grads))


@needs_triton
def test_operators_obey_pytorchs_rules() -> None:
    from mforce.kernels.triton.operators.attention import flash_attention, flash_attention_into

    inputs = draw(2, 9, 11, 2, 16)
    values = [x.detach() for x in inputs]
    with runs("triton", "attention", "attention_backward"):
        torch.library.opcheck(flash_attention, tuple(inputs))
        torch.library.opcheck(flash_attention_into, (*values, torch.empty(2, 9, 40, device=DEVICE)[..., :32]))


@pytest.mark.parametrize("backend", ["auto", TRITON, "sdpa_math", "reference"])
def test_one_graph_for_all_lengths(backend: str) -> None:
    """No graph break, and after the second length no compilation more; the result is written in place."""

    def block(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
        with use_attention(backend):
            return attention(q * 2, k, v, out=buffer[..., :32]).sin()

    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend=counter)
    for length in (19, 23, 31, 40):
        inputs = draw(1, length, length, 2, 16)
        with runs("triton", *(("attention",) if backend == "triton" else ())):
            out = compiled(*inputs, torch.empty(1, length, 40, device=DEVICE))
        right = exact(inputs[0] * 2, *inputs[1:]).sin()
        assert relative(out.detach(), right.detach()) < 1e-5
        (ours,), (theirs,) = (torch.autograd.grad(x.sum(), inputs[:1]) for x in (out, right))
        assert relative(ours, theirs.double()) < 1e-5
    assert counter.frame_count <= 2
    with torch.no_grad():
        buffer = torch.full((1, 19, 40), torch.nan, device=DEVICE)
        values = [x.detach() for x in draw(1, 19, 19, 2, 16)]
        compiled(*values, buffer)
    assert relative(buffer[..., :32], exact(values[0] * 2, *values[1:])) < 1e-5
    assert buffer[..., 32:].isnan().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: (q, k[:, :, :1], v), "do not fit"),
        (lambda q, k, v: (q, k, v[:, :3]), "do not fit"),
        (lambda q, k, v: (q, k, v.double()), "differ in dtype"),
    ],
)
def test_shapes_that_do_not_fit(change: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(*change(*draw(1, 4, 4, 2, 8)))


def test_outputs_that_do_not_fit() -> None:
    inputs = [x.detach() for x in draw(1, 4, 6, 2, 8)]
    with pytest.raises(ValueError, match="out must be"):
        attention(*inputs, out=torch.empty(1, 4, 15))
    with pytest.raises(ValueError, match="must be contiguous"):
        attention(*inputs, out=torch.empty(1, 16, 4).transpose(1, 2))
