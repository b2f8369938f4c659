"""Contestants timed in turns, so that a change of clock or load meets all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..kernels.registry import first_line

#: Written before every run on a GPU: it empties the caches, and while it is written the launches of the run queue up.
_FLUSH_BYTES = 2**30

#: Writes at most before a run whose launches are to be queued before it begins: 46 ms on an H100.
_MOST_WRITES = 128

Run = Callable[[], object]


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    if len(values) < 2:
        return dict.fromkeys(("median", "lower_quartile", "upper_quartile"), values[0])
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "lower_quartile": lower, "upper_quartile": upper}


def in_turns(
    runs: Mapping[str, Run], device: torch.device, repeats: int, queued: bool = False
) -> dict[str, list[float]]:
    """Seconds of every run in each of ``repeats`` rounds over all of them; ``queued`` as in :func:`compare`."""
    clock: Callable[[Run], float] = cuda_clock(device, queued) if device.type == "cuda" else _wall_clock
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(clock(run))
    return times


def compare(
    runs: Mapping[str, Run], device: torch.device, repeats: int, ours: str = "mforce", queued: bool = False
) -> list[dict[str, Any]]:
    """One row a contestant, ready for JSON: ``name``, spread of ``seconds``, and ``times_ours``, the median over rounds
    of its time relative to that of ``ours`` in the same round (above 1: slower than ours).

    A first run of each warms up; one that cannot run has the reason in ``problem`` instead.

    Args:
        ours: what the others are held against.
        queued: on a GPU, all launches of a run wait in the queue before it begins: the device is timed, and not Python.
            Otherwise a run with many launches may wait for Python, as in use.
    """
    problems = {name: problem for name, run in runs.items() if (problem := failure(run)) is not None}
    times = in_turns({name: run for name, run in runs.items() if name not in problems}, device, repeats, queued)
    rows: list[dict[str, Any]] = []
    for name in runs:
        if name in problems:
            rows.append({"name": name, "problem": problems[name]})
            continue
        row: dict[str, Any] = {"name": name, "seconds": spread(times[name])}
        if ours in times:
            pairs = zip(times[name], times[ours], strict=True)
            row["times_ours"] = statistics.median(theirs / mine for theirs, mine in pairs)
        rows.append(row)
    return rows


def failure(run: Run) -> str | None:
    """Why a run fails, as a phrase; None where it works."""
    try:
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except Exception as error:  # compilers, drivers and other libraries each have their own
        return phrase(error)
    return None


def phrase(error: Exception) -> str:
    """The kind of an error and what it says first."""
    return f"{type(error).__name__}: {first_line(error)}"


def _wall_clock(run: Run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def cuda_clock(device: torch.device, queued: bool) -> Callable[[Run], float]:
    """Seconds of a run between two events on the device.

    Args:
        queued: a run that began before its last launch was queued is timed again, behind twice as many writes; what
            waits for the device by itself is timed as it is.
    """
    flush = _flush_buffer(device)
    writes: dict[Run, int] = {}

    def clock(run: Run) -> float:
        while True:
            count = writes.setdefault(run, 1)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            for _ in range(count):
                flush.zero_()
            start.record()
            run()
            end.record()
            begun = start.query()
            end.synchronize()
            if not (queued and begun) or count >= _MOST_WRITES:
                return float(start.elapsed_time(end)) / 1e3
            writes[run] = 2 * count

    return clock


def _flush_buffer(device: torch.device) -> Tensor:
    free, _ = torch.cuda.mem_get_info(device)
    return torch.empty(min(_FLUSH_BYTES, free // 4), dtype=torch.uint8, device=device)
