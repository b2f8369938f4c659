"""Each step, on both back ends, against an independent float64 formulation: values, gradients, every element written.

Without a GPU the Triton kernels run in Triton's interpreter.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_evidence import DEVICE, TRITON_PROBLEM, needs_kitchen, needs_triton, runs
from mforce.kernels import (
    Modulation,
    PackedHeads,
    Segment,
    adaln,
    back_end,
    concat_swiglu,
    gated_residual,
    gated_residual_adaln,
    qk_norm_rope,
    rope_table,
    swiglu,
)

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
DTYPES = list(TOLERANCE)
MODULATION = ("adaln", "gated_residual", "gated_residual_adaln")

Tensors = tuple[torch.Tensor, ...]


@pytest.fixture(params=["reference", pytest.param("triton", marks=needs_triton)])
def on(request: pytest.FixtureRequest) -> Iterator[str]:
    with back_end(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that nobody wrote holds NaN; an operation that is not deterministic raises."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(2).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape).to(DEVICE, dtype)


def relative(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return float((ours.detach().double() - exact.detach()).norm() / exact.detach().norm().clamp(min=1e-30))


def compare(
    ours: Callable[..., Tensors], exact: Callable[..., Tensors], inputs: Tensors, tolerance: float | None = None
) -> None:
    """Values without autograd and, unless it is off, with it, and gradients of all inputs along random directions."""
    tolerance = tolerance or TOLERANCE[inputs[0].dtype]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    expected = exact(*wide)
    with torch.no_grad():
        for value, theirs in zip(ours(*inputs), expected, strict=True):
            assert relative(value, theirs) < tolerance
    if not torch.is_grad_enabled():
        return
    leaves = [x.detach().requires_grad_() for x in inputs]
    values = ours(*leaves)
    for value, theirs in zip(values, expected, strict=True):
        assert relative(value, theirs) < tolerance
    directions = [torch.randn_like(value) for value in values]
    grads = torch.autograd.grad(values, leaves, directions)
    theirs = torch.autograd.grad(expected, wide, [d.double() for d in directions])
    for grad, exact_grad in zip(grads, theirs, strict=True):
        assert grad.dtype == inputs[0].dtype
        assert relative(grad, exact_grad) < tolerance


def per_token(vectors: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """(segments, B, C) -> one vector per token, (B, L, C): what the kernels avoid making."""
    return torch.cat([v[:, None].expand(-1, n, -1) for v, n in zip(vectors, lengths, strict=True)], dim=1)


def segments_of(lengths: tuple[int, ...], gates: torch.Tensor, *rest: torch.Tensor) -> list[Segment]:
    shifts, scales = rest or (gates, gates)
    return [Segment(*pair) for pair in zip(lengths, map(Modulation, shifts, scales, gates), strict=True)]


def check_modulation(lengths: tuple[int, ...], batch: int, width: int, dtype: torch.dtype) -> None:
    x, y = draw(2, batch, sum(lengths), width, dtype=dtype)
    shift, scale, gate = draw(3, len(lengths), batch, width, dtype=dtype)

    def norm(tokens: torch.Tensor, *vectors: torch.Tensor) -> torch.Tensor:
        shifts, scales = (per_token(v, lengths) for v in vectors)
        return torch.nn.functional.layer_norm(tokens, (width,), eps=1e-6) * (1 + scales) + shifts

    def residual(x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return x + per_token(gate, lengths) * y

    compare(
        lambda x, shift, scale: (adaln(x, segments_of(lengths, gate, shift, scale)),),
        lambda x, shift, scale: (norm(x, shift, scale),),
        (x, shift, scale),
    )
    compare(
        lambda x, y, gate: (gated_residual(x, y, segments_of(lengths, gate)),),
        lambda x, y, gate: (residual(x, y, gate),),
        (x, y, gate),
    )
    compare(
        lambda x, y, gate, shift, scale: gated_residual_adaln(
            x, y, segments_of(lengths, gate), list(map(Modulation, shift, scale))
        ),
        lambda x, y, gate, shift, scale: (residual(x, y, gate), norm(residual(x, y, gate), shift, scale)),
        (x, y, gate, shift, scale),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [(1,), (17,), (5, 0, 3)])
def test_adaln_and_gated_residual(on: str, lengths: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    with runs(on, *MODULATION):
        check_modulation(lengths, 2, 24, dtype)


@pytest.mark.parametrize("inplace", [False, True])
def test_strided_tokens_and_shared_modulations(on: str, inplace: bool) -> None:
    """Slices of a longer sequence and of wider rows; one modulation for the whole batch; writing over the input."""
    torch.manual_seed(0)
    x, y = draw(3, 9, 40)[:, 2:8, 8:32], draw(3, 6, 48)[..., ::2].contiguous().transpose(0, 1).contiguous()
    y = y.transpose(0, 1)
    vectors = draw(3, 2, 1, 24)
    segments = segments_of((4, 2), vectors[0], vectors[1], vectors[2])
    gates, shifts, scales = (per_token(v.expand(-1, 3, -1).double(), (4, 2)) for v in vectors)
    exact = x.double() + gates * y.double()
    normal = torch.nn.functional.layer_norm(exact, (24,), eps=1e-6) * (1 + scales) + shifts
    with torch.no_grad(), runs(on, "gated_residual", "gated_residual_adaln"):
        before, source = x.clone(), x.clone() if not inplace else x
        assert relative(gated_residual(source, y, segments, inplace=inplace), exact) < 1e-5
        assert torch.equal(source, before) != inplace
        x.copy_(before)
        residual, h = gated_residual_adaln(x, y, segments, [s.modulation for s in segments], inplace=inplace)
    assert relative(residual, exact) < 1e-5
    assert relative(h, normal) < 1e-5
    assert (residual.data_ptr() == x.data_ptr()) == inplace


def test_segments_must_cover_the_sequence() -> None:
    segments = segments_of((3,), draw(1, 1, 8))
    with pytest.raises(ValueError, match="cover 3 tokens, the sequence has 4"):
        adaln(draw(1, 4, 8), segments)
    with pytest.raises(ValueError, match="no gate"):
        gated_residual(draw(1, 3, 8), draw(1, 3, 8), [Segment(3, Modulation(*draw(2, 1, 8)))])


def angles_of(positions: torch.Tensor, axes: tuple[int, ...], theta: float) -> torch.Tensor:
    parts = [
        positions[:, axis, None].double() * theta ** (-torch.arange(0, dim, 2).double() / dim)
        for axis, dim in enumerate(axes)
    ]
    return torch.cat(parts, dim=1).to(DEVICE)


def exact_rope(x: torch.Tensor, scale: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """PyTorch's own RMSNorm, then a product of complex numbers."""
    normed = torch.nn.functional.rms_norm(x, x.shape[-1:], scale, eps=1e-6)
    pairs = torch.view_as_complex(normed.unflatten(-1, (-1, 2)).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.view_as_real(turned).flatten(-2)


def check_rope(lengths: tuple[int, ...], batch: int, heads: int, axes: tuple[int, ...], dtype: torch.dtype) -> None:
    positions = torch.randint(0, 40, (sum(lengths), 4)).float()
    angles, dim = angles_of(positions, axes, 2000.0), sum(axes)
    table = rope_table(positions.to(DEVICE), axes, 2000.0)
    # Rows are wider than q, k and v: the MLP's share of the same Linear lies behind them.
    rows = tuple(draw(batch, n, 3 * heads * dim + 8, dtype=dtype) for n in lengths)
    scales = (draw(2, len(lengths), dim).abs() + 0.5).to(dtype)

    def packed(rows: Tensors) -> list[torch.Tensor]:
        return [row[..., :-8].unflatten(-1, (3, heads, dim)) for row in rows]

    def ours(scales: torch.Tensor, *rows: torch.Tensor) -> Tensors:
        return qk_norm_rope([PackedHeads(*stream) for stream in zip(packed(rows), *scales, strict=True)], table)

    def exact(scales: torch.Tensor, *rows: torch.Tensor) -> Tensors:
        parts: list[list[torch.Tensor]] = [[], [], []]
        for qkv, *pair, rotation in zip(packed(rows), *scales, angles.split(lengths), strict=True):
            for kind in range(3):
                x = qkv[:, :, kind]
                parts[kind].append(x if kind == 2 else exact_rope(x, pair[kind], rotation))
        return tuple(torch.cat(part, dim=1) for part in parts)

    compare(ours, exact, (scales, *rows))
    with torch.no_grad():  # over its own input, and the rest of the rows stays as it is
        behind = rows[0][..., -8:].clone()
        expected = exact(scales[:, :1].double(), rows[0].double()) if len(lengths) == 1 else None
        if expected is not None:
            stream = PackedHeads(packed(rows)[0], *scales[:, 0])
            for value, theirs in zip(qk_norm_rope([stream], table, inplace=True), expected, strict=True):
                assert relative(value, theirs) < TOLERANCE[dtype]
                assert value.untyped_storage().data_ptr() == rows[0].untyped_storage().data_ptr()
            assert torch.equal(rows[0][..., -8:], behind)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("lengths", "heads", "axes"), [((1,), 1, (4, 4, 4, 4)), ((17,), 3, (4, 8, 4, 8)), ((3, 0, 2), 2, (8, 8, 8, 8))]
)
def test_qk_norm_rope(on: str, lengths: tuple[int, ...], heads: int, axes: tuple, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    with runs(on, "qk_norm_rope"):
        check_rope(lengths, 2 if sum(lengths) < 9 else 1, heads, axes, dtype)


@pytest.mark.parametrize(
    ("tokens", "features", "dtype"),
    [(4, 8, torch.float32), (6, 8, torch.float32), (5, 4, torch.float32), (5, 8, torch.float64)],
)
def test_a_table_of_others_is_refused(on: str, tokens: int, features: int, dtype: torch.dtype) -> None:
    streams = [PackedHeads(draw(1, length, 3, 2, 8), *draw(2, 8).unbind()) for length in (2, 3)]
    table = rope_table(torch.arange(tokens, device=DEVICE)[:, None], (features,), 2000.0).to(dtype)
    with torch.no_grad(), pytest.raises(ValueError, match="table"):
        qk_norm_rope(streams, table)


@needs_kitchen
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [(1,), (17,), (5, 0, 3)])
def test_comfy_kitchen(lengths: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ops = ("adaln", "gated_residual_adaln", "qk_norm_rope")
    with back_end("kitchen"), torch.no_grad(), runs("kitchen", *ops):
        check_modulation(lengths, 2, 24, dtype)
        check_rope(lengths, 2, 3, (4, 8, 4, 8), dtype)


@needs_kitchen
@pytest.mark.parametrize("batch", [1, 2])
def test_comfy_kitchens_operation_in_place_takes_a_model_in_training(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture made between two steps of training: norms whose scales are trained, q and k beside each other in what
    one Linear wrote. The library's kernels for GPUs refuse what trains or overlaps; its PyTorch code does not look."""
    import comfy_kitchen

    def strict(q: torch.Tensor, k: torch.Tensor, rotations: torch.Tensor, *scales: torch.Tensor | float) -> object:
        *scales, eps = scales
        assert not any(tensor.requires_grad for tensor in (q, k, rotations, *scales))
        memory = [tensor.untyped_storage().data_ptr() for tensor in (q, k, rotations, *scales)]
        assert memory[0] == memory[1] not in memory[2:]
        numbers = torch.arange(row.numel())
        written = [numbers.as_strided(x.shape, x.stride(), x.storage_offset()).flatten() for x in (q, k)]
        assert len(torch.cat(written).unique()) == q.numel() + k.numel()
        return rms_rope_(q, k, rotations, *scales, eps)

    rms_rope_ = comfy_kitchen.rms_rope_
    monkeypatch.setattr(comfy_kitchen, "rms_rope_", strict)
    torch.manual_seed(0)
    heads, features = 3, 24
    table = rope_table(torch.arange(5, device=DEVICE)[:, None], (features,), 2000.0)
    row = draw(batch, 5, 3 * heads * features + 8)
    stream = PackedHeads(
        row[..., :-8].unflatten(-1, (3, heads, features)), *(x.requires_grad_() for x in draw(2, features).unbind())
    )
    with torch.no_grad():
        with back_end("reference"):
            expected = qk_norm_rope([stream], table)
        with back_end("kitchen"), runs("kitchen", "qk_norm_rope"):
            found = qk_norm_rope([stream], table, inplace=True)
    assert found[0].data_ptr() == row.data_ptr()
    for ours, right in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-5)


def check_swiglu(batch: int, length: int, width: int, dtype: torch.dtype) -> None:
    rows, left = draw(batch, length, 5 + 2 * width, dtype=dtype), draw(batch, length, 3, dtype=dtype)

    def exact(rows: torch.Tensor) -> torch.Tensor:
        gate, value = rows[..., 5:].chunk(2, dim=-1)
        return gate * gate.sigmoid() * value

    compare(lambda rows: (swiglu(rows[..., 5:]),), lambda rows: (exact(rows),), (rows,))
    compare(
        lambda left, rows: (concat_swiglu(left, rows[..., 5:]),),
        lambda left, rows: (torch.cat((left, exact(rows)), dim=-1),),
        (left, rows),
    )
    with torch.no_grad():
        joined = torch.full((batch, length, 3 + width), torch.nan, dtype=dtype, device=DEVICE)
        assert swiglu(rows[..., 5:], out=joined[..., 3:]).data_ptr() == joined[..., 3:].data_ptr()
        assert relative(joined[..., 3:], exact(rows.double())) < TOLERANCE[dtype]
        assert joined[..., :3].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "length", "width"), [(1, 1, 1), (2, 17, 24), (1, 2, 3000)])
def test_swiglu(on: str, batch: int, length: int, width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    with runs(on, "swiglu"):
        check_swiglu(batch, length, width, dtype)


def test_longer_than_one_block_of_rows(on: str) -> None:
    torch.manual_seed(0)
    with runs(on, *MODULATION, "qk_norm_rope", "swiglu"):
        check_modulation((130,), 1, 24, torch.bfloat16)
        check_rope((130,), 1, 1, (4, 4, 4, 4), torch.bfloat16)
        check_swiglu(1, 130, 40, torch.bfloat16)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_shapes(data: st.DataObject) -> None:
    def whole(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    torch.manual_seed(0)
    batch, dtype = whole(1, 3), data.draw(st.sampled_from(DTYPES))
    lengths = tuple(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(any)))
    for name in ("reference", *(() if TRITON_PROBLEM else ("triton",))):
        with back_end(name), runs(name, *MODULATION, "qk_norm_rope", "swiglu"):
            check_modulation(lengths, batch, whole(6, 70), dtype)
            check_rope(lengths, batch, whole(1, 5), tuple(2 * whole(1, 5) for _ in range(4)), dtype)
            check_swiglu(batch, sum(lengths), whole(1, 70), dtype)
