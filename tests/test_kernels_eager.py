"""Triton kernels under eager autograd go past the dispatcher; whatever else looks on meets PyTorch's operators."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kernel_evidence import DEVICE, needs_triton, runs
from mforce.kernels import (
    Modulation,
    PackedHeads,
    Segment,
    adaln,
    attention,
    back_end,
    concat_swiglu,
    gated_residual,
    gated_residual_adaln,
    qk_norm_rope,
    rope_table,
    swiglu,
)

pytestmark = needs_triton


def _segments(vectors: torch.Tensor) -> list[Segment]:
    """Two segments; ``vectors`` are their shifts, scales and gates, (2, 3, B, C)."""
    return [Segment(length, Modulation(*part)) for length, part in zip((2, 3), vectors, strict=True)]


def _rope(x: torch.Tensor, y: torch.Tensor, vectors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    streams = [PackedHeads(part[:, :, None].expand(-1, -1, 3, -1, -1), *vectors[0, :2, 0, :8]) for part in
               (x.unflatten(2, (3, 8)), y.unflatten(2, (3, 8)))]  # fmt: skip
    return qk_norm_rope(streams, rope_table(torch.arange(10, device=DEVICE)[:, None], (8,), 2000.0))


#: Operation -> outputs from x, y (B, 5, 24) and vectors.
RUNS: dict[str, Callable[..., Any]] = {
    "adaln": lambda x, y, vectors: adaln(x, _segments(vectors)),
    "gated_residual": lambda x, y, vectors: gated_residual(x, y, _segments(vectors)),
    "gated_residual_adaln": lambda x, y, vectors: gated_residual_adaln(
        x, y, _segments(vectors), [segment.modulation for segment in _segments(vectors)]
    ),
    "qk_norm_rope": _rope,
    "swiglu": lambda x, y, vectors: concat_swiglu(y, swiglu(x)),
    "attention": lambda x, y, vectors: attention(*(t.unflatten(2, (3, 8)) for t in (x, y, x + y))),
}


class Watch(TorchDispatchMode):
    """Names of the operators of this package that a mode sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.namespace == "mforce":
            self.seen.add(func._opname)
        return func(*args, **(kwargs or {}))


def inputs() -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = ((2, 5, 24), (2, 5, 24), (2, 3, 2, 24))
    return [torch.randn(shape, device=DEVICE).requires_grad_() for shape in shapes]


def total(outputs: Any) -> torch.Tensor:
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return sum((out * torch.linspace(-1, 1, out.numel(), device=DEVICE).view_as(out)).sum() for out in outputs)


def loss_and_gradients(run: Callable[..., Any]) -> list[torch.Tensor]:
    leaves = inputs()
    loss = total(run(*leaves))
    return [loss.detach(), *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("op", RUNS)
def test_operators_and_autograd_give_the_same_bits(op: str) -> None:
    with back_end("triton"), runs("triton", op):
        ours = loss_and_gradients(RUNS[op])
        with Watch() as watch:
            theirs = loss_and_gradients(RUNS[op])
    backward = {"attention": "attention_backward", "swiglu": "swiglu_backward", "qk_norm_rope": "qk_norm_rope_backward"}
    assert watch.seen == {op, backward.get(op, "modulation_backward")}
    for found, expected in zip(ours, theirs, strict=True):
        assert torch.equal(found, expected)
    assert any(grad.abs().max() > 0 for grad in ours[1:])


@pytest.mark.parametrize("op", RUNS)
def test_autograd_alone_meets_no_operator(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("an operator ran")

    monkeypatch.setattr(torch.library.CustomOpDef, "__call__", refuse)
    with back_end("triton"), runs("triton", op):
        loss_and_gradients(RUNS[op])
        with torch.no_grad():
            RUNS[op](*inputs())


def test_an_operator_writes_where_it_is_told() -> None:
    x = inputs()[0].detach()
    out = torch.full_like(x[..., :12], torch.nan)
    with back_end("triton"), Watch() as watch:
        assert swiglu(x, out=out) is out
    assert watch.seen == {"swiglu"}
    with back_end("triton"):
        assert torch.equal(out, swiglu(x))


@pytest.mark.parametrize("op", RUNS)
def test_a_gradient_has_no_gradient(op: str) -> None:
    """The kernels have none for it; silence would be a wrong one."""
    leaves = inputs()
    with back_end("triton"):
        loss = total(RUNS[op](*leaves))
        grads = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
        with pytest.raises(RuntimeError, match="no autograd formula"):
            total(tuple(grads)).backward()
