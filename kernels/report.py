"""What would run and what ran, for people and for a result's metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from .choice import candidates, choices, compiled
from .measured import measured_choice
from .registry import BACK_ENDS, OPS, Call, launches
from .spec import AUTO, asked_for, back_end, current_spec, scope
from .trials import problem_of
from .versions import versions

#: Channels of a row and features of a head that a report is about.
_USUAL_WIDTH = {"attention": 128, "qk_norm_rope": 128}


class OpReport(NamedTuple):
    """What an operation runs on, and why."""

    #: The back end, or several where sizes decide.
    runs_on: str
    reason: str
    #: Every back end: None where it works on the device, else why it does not, as a phrase.
    back_ends: dict[str, str | None]
    #: Measured buckets: the choice, and median seconds of every candidate.
    measured: dict[str, dict[str, Any]]


def kernel_report(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> dict[str, OpReport]:
    """Every operation, attention included, in inference on ``device``; back ends are tried where only that tells."""
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return {op: _report(op, device, dtype) for op in OPS}


def _report(op: str, device: torch.device, dtype: torch.dtype) -> OpReport:
    call = Call(op, device, dtype, _USUAL_WIDTH.get(op, 64), False)
    back_ends = {name: problem_of(call, name) for name in BACK_ENDS[op]}
    measured = measured_choice(device).measured() if device.type == "cuda" else {}
    measured = {bucket: entry for bucket, entry in measured.items() if bucket.startswith(f"{op} ")}
    name = asked_for(op, scope.spec)
    if name != AUTO:
        problem = back_ends[name]
        return OpReport(name, "asked for" if problem is None else f"asked for, but {problem}", back_ends, measured)
    if device.type == "cpu":
        runs_on = "sdpa or reference" if op == "attention" else "reference"
        return OpReport(runs_on, "a rule by dtype and length" if op == "attention" else "CPU", back_ends, measured)
    works = [name for name in candidates(call) if back_ends[name] is None]
    if len(works) > 1:
        return OpReport(" or ".join(works), "the fastest, measured once per size", back_ends, measured)
    found = works[0] if works else OPS[op].yardstick
    return OpReport(found, "the only one that works" if works else "no kernel works", back_ends, measured)


def what_ran(since: Counter[tuple[str, str]] | None = None) -> dict[str, Any]:
    """What kernels ran in this process, or since an earlier :func:`.launches`, ready for JSON.

    Returns:
        ``asked``: the specification in force.
        ``launches``: operation -> back end -> how often, outside compiled code; Triton's inside it, too; a replayed
        CUDA graph counts nothing.
        ``compiled``: operation -> back end -> how often it was built into compiled code.
        ``choices``: what was chosen by measurement, by kind and sizes of the call.
        ``versions``: of the libraries that the kernels come from.
        ``pin``: a specification that asks by name for what ran; operations of which several back ends ran, as sizes
        told, stay automatic.
    """
    ran = launches() - (since or Counter())
    by_op = _by_op(ran)
    backends = _by_op(ran + compiled)
    pin = ",".join(f"{op}={next(iter(names))}" for op, names in backends.items() if op in OPS and len(names) == 1)
    return {
        "asked": current_spec(),
        "launches": by_op,
        "compiled": _by_op(compiled),
        "choices": dict(choices),
        "versions": versions(),
        "pin": f"{AUTO},{pin}" if pin else AUTO,
    }


def _by_op(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (op, name), times in sorted(counts.items()):
        found.setdefault(op, {})[name] = times
    return found


@contextmanager
def pinned(record: Mapping[str, Any]) -> Iterator[None]:
    """Run inside the ``with`` block, in this thread, what ``record`` of :func:`what_ran` says; what cannot run raises.

    The same kernels give the same bits only with the same versions on the same device; compare ``versions``.

    Raises:
        ValueError: the record names what does not exist here, or is none.
    """
    before, pin, choices = scope.choices, record.get("pin"), record.get("choices")
    if not isinstance(pin, str) or not isinstance(choices, dict):
        raise ValueError("The record of kernels does not say which ran: it needs `pin` and `choices`.")
    with back_end(pin):
        scope.choices = choices
        try:
            yield
        finally:
            scope.choices = before
