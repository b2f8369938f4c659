"""The kernels beside their peers: time, bytes a second, and how much of the machine's copy bandwidth that is."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..kernels import back_end
from .kernel_cases import Case, Hand, cases
from .subjects import Subject
from .timing import compare, phrase

#: Distance from the op-by-op result, relative to its size, that roundings explain.
_AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def measure_kernels(
    subject: Subject, device: torch.device, dtype: torch.dtype, repeats: int, copy_rate: float, compiled: bool
) -> list[dict[str, Any]]:
    """One row for each kernel, pass and hand.

    Rows have ``kernel``, ``pass``, ``name`` of the hand, ``bytes`` that the work needs, spread of ``seconds``,
    ``bytes_per_second``, ``of_copy`` (relative to ``copy_rate``) and ``times_ours``; or the reason why it does not run
    in ``problem``. A hand named ``copy`` moves as many bytes and does nothing else.
    """
    # Ours against the others' is the question, so the automatic choice among both is not what is timed.
    with back_end("triton" if device.type == "cuda" else "auto"):
        return [
            row
            for case in cases(subject, device, dtype)
            for row in _measure_case(case, device, dtype, repeats, copy_rate, compiled)
        ]


def _measure_case(
    case: Case, device: torch.device, dtype: torch.dtype, repeats: int, copy_rate: float, compiled: bool
) -> list[dict[str, Any]]:
    hands = dict(case.hands)
    if compiled:
        hands["op_by_op compiled"] = torch.compile(hands["op_by_op"], dynamic=False)
    rows = _measure_pass(case, hands, "forward", case.bytes, device, dtype, repeats, copy_rate)
    if case.backward_bytes is not None:
        hands = {name: hand for name, hand in hands.items() if not name.startswith("comfy")}
        rows += _measure_pass(case, hands, "backward", case.backward_bytes, device, dtype, repeats, copy_rate)
    return rows


def _measure_pass(
    case: Case,
    hands: dict[str, Hand],
    step: str,
    work: int,
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
    copy_rate: float,
) -> list[dict[str, Any]]:
    prepare = _forward if step == "forward" else _backward
    runs: dict[str, Callable[[], object]] = {}
    problems: dict[str, str] = {}
    expected = None
    for name in sorted(hands, key="op_by_op".__ne__):  # what the others are held against comes first
        try:
            run, first = prepare(case, hands[name])
            expected = first if expected is None else expected
            distance = _distance(first, expected)
            if not distance <= _AGREEMENT[dtype]:
                raise ArithmeticError(f"its result is off by {distance:.2g}")
            runs[name] = run
        except Exception as error:  # libraries that are missing, compilers, drivers
            problems[name] = phrase(error)
    source = torch.empty(work // 2, dtype=torch.uint8, device=device)
    runs["copy"] = partial(torch.empty_like(source).copy_, source)
    measured = {row["name"]: row for row in compare(runs, device, repeats, queued=True)}
    rows = []
    for name in (*hands, "copy"):
        row = {"kernel": case.name, "pass": step, "bytes": work, **measured.get(name, {"name": name})}
        if name in problems:
            row["problem"] = problems[name]
        if "seconds" in row:
            row["bytes_per_second"] = work / row["seconds"]["median"]
            row["of_copy"] = row["bytes_per_second"] / copy_rate
        rows.append(row)
    return rows


def _forward(case: Case, hand: Hand) -> tuple[Callable[[], object], list[Tensor]]:
    """What is timed, and the outputs of a first run, kept from later ones."""
    inputs = case.draw()
    run = torch.no_grad()(partial(hand, *inputs))
    return run, [tensor.clone() for tensor in run()]


def _backward(case: Case, hand: Hand) -> tuple[Callable[[], object], Sequence[Tensor]]:
    inputs = [tensor.requires_grad_(i < case.differentiable) for i, tensor in enumerate(case.draw())]
    outputs = hand(*inputs)
    run = partial(
        torch.autograd.grad,
        outputs,
        inputs[: case.differentiable],
        [torch.ones_like(tensor) for tensor in outputs],
        retain_graph=True,
        allow_unused=True,
    )
    return run, [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, run(), strict=False)]


def _distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative distance; NaN counts."""
    distances = [
        (ours.float() - theirs.float()).norm() / theirs.float().norm().clamp(min=1e-12)
        for ours, theirs in zip(found, expected, strict=True)
    ]
    return float(torch.stack(distances).max())
