"""Seconds of functions that are run in turn, so that a change of clock or load meets all of them."""

import time
from collections.abc import Callable, Mapping

import torch

#: clock(function, device, repeats) -> seconds of ``repeats`` runs in a row.
Clock = Callable[[Callable[[], object], torch.device, int], float]

#: A function whose best of two rounds or more takes more than this many times the fastest one's best has lost. One
#: round says little: where other programs use the same GPU, a slice of theirs can fall into it.
_HOPELESS = 2.0

_REPEATS = 3


def race(
    functions: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int,
    budget: float,
    clock: Clock | None = None,
) -> dict[str, list[float]]:
    """Time of one run of each function in each of at most ``rounds``, each the mean of a few runs in a row.

    To find the fastest at little cost: losers of two rounds are not run again, and no round begins once ``budget``
    seconds are spent.
    """
    clock = clock or _clock_of(device)
    times: dict[str, list[float]] = {name: [] for name in functions}
    running, spent = list(functions), 0.0
    for _ in range(rounds):
        for name in running:
            elapsed = clock(functions[name], device, _REPEATS)
            times[name].append(elapsed / _REPEATS)
            spent += elapsed
        if len(times[running[0]]) > 1:
            fastest = min(min(times[name]) for name in running)
            running = [name for name in running if min(times[name]) <= _HOPELESS * fastest]
        if len(running) == 1 or spent >= budget:
            break
    return times


def _clock_of(device: torch.device) -> Clock:
    return _cuda_clock if device.type == "cuda" else _wall_clock


def _cuda_clock(function: Callable[[], object], device: torch.device, repeats: int) -> float:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            function()
        end.record()
        end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _wall_clock(function: Callable[[], object], device: torch.device, repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        function()
    return time.perf_counter() - started
