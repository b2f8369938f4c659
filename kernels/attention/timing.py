"""Seconds of functions that are run in turn, so that a change of clock or load meets all of them."""

import time
from collections.abc import Callable, Mapping

import torch


def seconds(
    functions: Mapping[str, Callable[[], object]], device: torch.device, rounds: int, repeats: int = 1
) -> dict[str, list[float]]:
    """Time of one run of each function in each of ``rounds``, each the mean of ``repeats`` runs in a row."""
    clock = _cuda_clock if device.type == "cuda" else _wall_clock
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(clock(function, device, repeats) / repeats)
    return times


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
