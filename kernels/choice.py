"""Who runs a call: the back end that was asked for, or the automatic choice.

Automatic on a CPU: the operation's own rule. On a GPU: the only candidate that can run, or of several the one that was
measured to be fastest at such a call; what was never measured and cannot be now takes the operation's default.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .measured import measured_choice
from .registry import BACK_ENDS, OPS, BackEnd, BackEndUnavailable, Call, Op, count, log_once
from .spec import AUTO, asked_for, scope
from .tracing import constant_when_traced, is_passive, needs_gradient
from .trials import problem_of

#: (operation, back end) -> how often it was built into compiled code.
compiled: Counter[tuple[str, str]] = Counter()

#: bucket -> back end: every choice on a GPU that was made between several candidates in this process.
choices: dict[str, str] = {}


def dispatch(
    op: Op,
    tensors: Sequence[Tensor],
    arguments: tuple[Any, ...],
    width: int,
    sizes: tuple[int, ...],
    named: str | None = None,
) -> Any:
    """Run ``op`` on the back end that was asked for, or that is best, and count it.

    Args:
        tensors: all of the call's, the one that gives dtype and device first.
        arguments: of the back end's ``run``.
        width, sizes: as in :class:`.Call`.
        named: a back end's name or ``auto``; None leaves it to the ``with`` blocks and the environment.

    Raises:
        BackEndUnavailable: one was asked for by name and cannot run.
        ValueError: one was asked for that does not exist.
    """
    tracing = torch.compiler.is_compiling()
    back_end = _back_end_for(op, tensors, width, sizes, named, tracing)
    if tracing:
        _note_compiled(op.name, back_end.name)
        return back_end.run(*arguments)
    result = back_end.run(*arguments)
    if not back_end.counts_itself:
        count(op.name, back_end.name)
    return result


def _back_end_for(
    op: Op, tensors: Sequence[Tensor], width: int, sizes: tuple[int, ...], named: str | None, tracing: bool
) -> BackEnd:
    first = tensors[0]
    device = first.device
    asked = asked_for(op.name, scope.spec) if named is None else named
    rule = asked == AUTO and device.type == "cpu"
    if rule and op.on_cpu is None:
        return BACK_ENDS[op.name]["reference"]
    call = Call(op.name, device, first.dtype, width, needs_gradient(*tensors), sizes)
    if rule and op.on_cpu is not None:
        name = op.on_cpu(call, tracing)
    elif tracing:
        name = _chosen_for_graph(op.name, asked, device.type, device.index, first.dtype, width, call.gradient)
    else:
        name = choose(call, asked, is_passive(first))
    back_end = BACK_ENDS[op.name][name]
    if not back_end.constraints.uniform:
        return back_end
    reason = back_end.constraints.against_tensors(tensors)
    if reason is not None:
        _falls_back(op.name, name, asked, reason)
    elif first.numel() > 0:
        return back_end
    return BACK_ENDS[op.name]["reference"]


def choose(call: Call, asked: str, passive: bool) -> str:
    """The name of the back end that serves ``call``.

    Args:
        asked: a back end's name, or ``auto``.
        passive: nothing may run on the device now: a compiler traces, or a CUDA graph is being captured.

    Raises:
        BackEndUnavailable: ``asked`` cannot run.
    """
    if asked != AUTO:
        return _require(call, asked, passive)
    op, names = OPS[call.op], candidates(call._replace(sizes=()))
    if not names:
        return op.yardstick
    if len(names) == 1:
        return names[0]
    pinned = scope.choices.get(call.bucket)
    if pinned is not None:
        return _require(call, pinned, passive)
    measured = measured_choice(call.device)
    if passive:
        found = measured.known(call) or measured.known_for_any_size(call) or op.default
    else:
        found = measured.best(call, names)
    found = found if found in names else names[0]
    if call.sizes:
        choices[call.bucket] = found
    return found


def _require(call: Call, name: str, passive: bool) -> str:
    reason = BACK_ENDS[call.op][name].problem(call) if passive else problem_of(call, name)
    if reason is not None:
        raise BackEndUnavailable(call.op, name, reason)
    return name


@functools.cache
def candidates(call: Call) -> tuple[str, ...]:
    """Back ends that the automatic choice may take for calls of this kind; why there are none is logged once."""
    found, problems = [], []
    for name, back_end in BACK_ENDS[call.op].items():
        if back_end.candidate:
            problem = back_end.problem(call)
            if problem is None:
                found.append(name)
            else:
                problems.append(f"{name}: {problem}")
    if not found and call.device.type == "cuda":
        log_once(f"{call.op} runs on its PyTorch reference ({'; '.join(problems)}).")
    return tuple(found)


@constant_when_traced
def _falls_back(op: str, name: str, asked: str, reason: str) -> bool:
    if asked != AUTO:
        raise BackEndUnavailable(op, name, reason)
    log_once(f"{op} runs on its PyTorch reference: {reason}.")
    return True


@constant_when_traced
def _chosen_for_graph(
    op: str, asked: str, device: str, index: int | None, dtype: torch.dtype, width: int, gradient: bool
) -> str:
    """The choice without the sizes, which may be symbols."""
    place = torch.device(device) if index is None else torch.device(device, index)
    return choose(Call(op, place, dtype, width, gradient), asked, passive=True)


@constant_when_traced
def _note_compiled(op: str, name: str) -> bool:
    compiled[op, name] += 1
    return True
