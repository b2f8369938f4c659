"""All measurements of one machine as one report, ready for JSON."""

import gc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from . import attention, denoise_step, kernels, machine, rollout
from .subjects import Subject
from .targets import targets
from .timing import phrase

SECTIONS = ("kernels", "attention", "step", "rollout", "training")

#: Steps of the rollout by device: a small model takes a second per step on a CPU.
_STEPS = {"cuda": 50, "cpu": 8}


def sections_of(what: str) -> tuple[str, ...]:
    """The sections that a word asks for.

    Raises:
        ValueError: there is no such section.
    """
    if what != "all" and what not in SECTIONS:
        raise ValueError(f"There is nothing called {what!r} to measure: choose all or one of {', '.join(SECTIONS)}.")
    return SECTIONS if what == "all" else (what,)


def measure_machine(
    what: str,
    subject: Subject,
    device: torch.device,
    dtype: torch.dtype,
    repeats: int | None = None,
    compiled: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[dict[str, Any]]:
    """The report after every section, so that it can be kept as it grows.

    Args:
        what: ``all`` or a section's name.
        repeats: rounds of every comparison; None: 30 on a GPU, 10 on a CPU, a fifth of them for rollouts.
        compiled: measure the peers under ``torch.compile`` too, which takes its time.
        say: called with what is measured next.
    """
    names = sections_of(what)
    kind = "cuda" if device.type == "cuda" else "cpu"
    if kind == "cuda":
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(device)  # which takes no device without a number
    repeats = repeats or {"cuda": 30, "cpu": 10}[kind]
    say("the machine's own rates")
    ceilings = machine.ceilings(device, dtype, repeats)
    copy_rate, matmul_rate = ceilings["copy_bytes_per_second"], ceilings["matmul_operations_per_second"]
    sizes = subject.architecture
    shape = (1, sizes.num_heads, subject.tokens, sizes.head_dim)
    runs: dict[str, Callable[[], object]] = {
        "kernels": partial(kernels.measure_kernels, subject, device, dtype, repeats, copy_rate, compiled),
        "attention": partial(attention.measure_attention, device, dtype, [shape], repeats),
        "step": partial(denoise_step.measure_step, subject, device, dtype, repeats, matmul_rate, compiled),
        "rollout": partial(rollout.measure_rollout, subject, device, dtype, _STEPS[kind], max(repeats // 5, 2)),
        "training": partial(_training, device, dtype, repeats, matmul_rate, compiled),
    }
    report: dict[str, Any] = {
        "machine": machine.describe(device),
        "architecture": subject.name,
        "dtype": str(dtype).removeprefix("torch."),
        "repeats": repeats,
        "ceilings": ceilings,
    }
    for name in names:
        say(name)
        try:
            report[name] = runs[name]()
        except (RuntimeError, ImportError) as error:  # too little memory, mostly; the other sections may fit
            report[name] = {"problem": phrase(error)}
        gc.collect()
        if kind == "cuda":
            torch.cuda.empty_cache()
        report["targets"] = targets(report)
        yield report


def _training(*arguments: Any) -> dict[str, Any]:
    from . import training  # needs an extra that the other sections do not

    return training.measure_training_step(*arguments)
