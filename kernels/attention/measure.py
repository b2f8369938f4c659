"""Trying and timing back ends on made-up inputs."""

import functools
import statistics
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..availability import log_once
from .backends import attend, problem
from .call import Call
from .timing import seconds

#: Distance of two correct results relative to their size: roundings of weights and of float32 products as TF32.
_AGREEMENT = {torch.bfloat16: 2e-2, torch.float16: 5e-3}
_AGREEMENT_FLOAT32 = 2e-3

_ROUNDS, _REPEATS = 5, 3

#: Sequence of a trial: not a multiple of any block.
_TRIAL_LENGTH = 70


def fails(name: str, call: Call) -> str | None:
    """What is wrong with a back end for calls of this kind, found by a small run of it; None where it works."""
    return problem(name, call) or _trial(
        name,
        call._replace(batch=2, heads=2, query_length=_TRIAL_LENGTH, key_length=_TRIAL_LENGTH),
    )


@functools.cache
def _trial(name: str, call: Call) -> str | None:
    with _plain():
        inputs = call.draw()
        return _wrong(lambda: _run(name, inputs), _run("reference", inputs), call.dtype)


def measure(call: Call, names: Iterable[str]) -> dict[str, float]:
    """Median seconds of every back end that works and agrees with the first, which must work.

    Timed as one round after another over all of them, forward, or forward and backward where a gradient is needed.
    Those that are left out are logged with the reason.
    """
    first, *others = names
    with _plain():
        inputs = call.draw()
        expected = _run(first, inputs)
        functions: dict[str, Callable[[], object]] = {first: lambda: _run(first, inputs)}
        for name in others:
            run = functools.partial(_run, name, inputs)
            wrong = problem(name, call) or _wrong(run, expected, call.dtype)
            if wrong is None:
                functions[name] = run
            else:
                log_once(f"attention ({call.bucket}): {name} is left out, {wrong}.")
        times = seconds(functions, call.device, _ROUNDS, _REPEATS)
    return {name: statistics.median(values) for name, values in times.items()}


def _run(name: str, inputs: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """The result, and the gradients where the inputs want them."""
    q, k, v = inputs
    attended = attend(name, q, k, v)
    if not q.requires_grad:
        return [attended]
    return [attended, *torch.autograd.grad(attended, (q, k, v), torch.ones_like(attended))]


def _wrong(run: Callable[[], list[Tensor]], expected: list[Tensor], dtype: torch.dtype) -> str | None:
    try:
        with warnings.catch_warnings():  # PyTorch warns of every reason before it raises
            warnings.simplefilter("ignore")
            found = run()
    except Exception as error:  # compilers, drivers and foreign libraries each have their own
        first_line = (str(error).strip().splitlines() or [""])[0]
        return f"it failed ({type(error).__name__}: {first_line})"
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
