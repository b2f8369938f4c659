"""Trying and timing back ends on made-up inputs."""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .registry import BACK_ENDS, OPS, Call, first_line, log_once
from .timing import race

#: Distance of two correct results relative to their size: roundings of weights and of float32 products as TF32.
_AGREEMENT = {torch.bfloat16: 2e-2, torch.float16: 5e-3}
_AGREEMENT_FLOAT32 = 2e-3

#: Rounds of a measurement at most, and the seconds after which no further round begins: a person waits for it.
_ROUNDS, _BUDGET = 5, 0.3

#: Every size of a trial except the first, which is 1: not a multiple of any block.
_TRIAL_SIZE = 70


@functools.cache
def trial(op: str, name: str, device: torch.device, dtype: torch.dtype, width: int, gradient: bool) -> str | None:
    """What is wrong with a back end for calls of this kind, found by a small run of it; None where it works."""
    sizes = (1, *(2 if size in ("heads", "segments") else _TRIAL_SIZE for size in OPS[op].sizes[1:]))
    with _plain():
        arguments = OPS[op].draw(Call(op, device, dtype, width, gradient, sizes))
        expected = _run(op, "reference", arguments)
        return _wrong(lambda: _run(op, name, arguments), expected, dtype)


def problem_of(call: Call, name: str) -> str | None:
    """Why a back end cannot run a call; one that does not know beforehand is tried. None where it can."""
    back_end = BACK_ENDS[call.op][name]
    problem = back_end.problem(call)
    if problem is None and back_end.needs_trial:
        problem = trial(call.op, name, call.device, call.dtype, call.width, call.gradient)
    return problem


def median_seconds(call: Call, names: Iterable[str]) -> dict[str, float]:
    """Median seconds of every back end that works and agrees with the operation's yardstick, which must work.

    Timed in turns, forward, or forward and backward where a gradient is needed. Those that are left out are logged with
    the reason; those that are far behind after two rounds are not timed again.
    """
    op = OPS[call.op]
    with _plain():
        arguments = op.draw(call)
        expected = _run(op.name, op.yardstick, arguments)
        functions: dict[str, Callable[[], object]] = {}
        for name in names:
            run = functools.partial(_run, op.name, name, arguments)
            wrong = BACK_ENDS[op.name][name].problem(call) or _wrong(run, expected, call.dtype)
            if wrong is None:
                functions[name] = run
            else:
                log_once(f"{call.bucket}: {name} is left out, {wrong}.")
        times = race(functions, call.device, _ROUNDS, _BUDGET)
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}


def _run(op: str, name: str, arguments: tuple[Any, ...]) -> list[Tensor]:
    """The results, and the gradients of the arguments that want them."""
    results = _tensors(BACK_ENDS[op][name].run(*arguments))
    leaves = [tensor for tensor in _tensors(arguments) if tensor.requires_grad]
    if not leaves:
        return results
    slopes = [torch.ones_like(result) for result in results]
    return [*results, *torch.autograd.grad(results, leaves, slopes)]


def _tensors(tree: object) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [tensor for part in tree for tensor in _tensors(part)] if isinstance(tree, (tuple, list)) else []


def _wrong(run: Callable[[], list[Tensor]], expected: list[Tensor], dtype: torch.dtype) -> str | None:
    try:
        with warnings.catch_warnings():  # PyTorch warns of every reason before it raises
            warnings.simplefilter("ignore")
            found = run()
    except Exception as error:  # compilers, drivers and foreign libraries each have their own
        return f"it failed ({type(error).__name__}: {first_line(error)})"
    limit = _AGREEMENT.get(dtype, _AGREEMENT_FLOAT32)
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = ours.detach().float(), theirs.detach().float()
        distance = float((ours - theirs).norm() / theirs.norm().clamp(min=1e-12))
        if not distance <= limit:
            return f"its result is off by {distance:.2g}"
    return None


@contextmanager
def _plain() -> Iterator[None]:
    """Whatever mode the caller is in: gradients as asked for, no autocast."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cuda", enabled=False):
        yield
