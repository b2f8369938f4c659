"""The same work on many items: here, on several devices by a process each, or past one machine with Ray Data."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import torch

from ..training.data.workers import map_items

#: Items that Ray hands to an actor at a time.
_PORTION = 16


@dataclass(frozen=True)
class Workers:
    """Where work runs.

    Attributes:
        devices: one process for each of several; a single one is used in this process.
        ray: with Ray Data instead, that many actors, each on the first device that it finds itself.
        ray_gpus: share of a GPU that Ray sets aside for an actor.
    """

    devices: Sequence[str] = ("cpu",)
    ray: int = 0
    ray_gpus: float = 0.0


def spread(
    make: Callable[..., Callable[[Any], Any]], job: Any, items: Sequence[Any], workers: Workers
) -> Iterator[Any]:
    """``make(job, device)`` called with each item; results in the order in which they are done.

    Args:
        make: a class, made once a process; it, the job, the items and the results pickle.
        job: what it is told.
        items: of work.
        workers: where.

    Raises:
        ValueError: a process ended from outside. What ``make`` raises in a process is raised here.
    """
    if workers.ray:
        portions = [list(items[start : start + _PORTION]) for start in range(0, len(items), _PORTION)]
        arguments = (make, job, workers.devices[0])
        for results in map_items(
            _Portions, arguments, portions, ray_workers=workers.ray, gpus_per_worker=workers.ray_gpus
        ):
            yield from results
    elif len(workers.devices) == 1 or len(items) < 2:
        work = make(job, workers.devices[0])
        for item in items:
            yield work(item)
    else:
        yield from _by_processes(make, job, items, workers.devices)


class _Portions:
    """Work on several items at a time."""

    def __init__(self, make: Callable[..., Callable[[Any], Any]], job: Any, device: str) -> None:
        self.work = make(job, device)

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        return [self.work(item) for item in items]


def _by_processes(
    make: Callable[..., Callable[[Any], Any]], job: Any, items: Sequence[Any], devices: Sequence[str]
) -> Iterator[Any]:
    """A process a device; each takes the next item when it has finished one, so that slow ones hold up nobody."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // len(devices))
    pools = [
        ProcessPoolExecutor(1, context, initializer=_start, initargs=(make, job, device, threads)) for device in devices
    ]
    waiting = iter(items)
    try:
        # Two a device: the next one waits in its queue while one is worked on.
        running = {
            pool.submit(_call, item): pool for pool in (*pools, *pools) if (item := next(waiting, None)) is not None
        }
        while running:
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                pool = running.pop(done)
                yield done.result()
                if (item := next(waiting, None)) is not None:
                    running[pool.submit(_call, item)] = pool
    except BrokenProcessPool:
        raise ValueError("A process of a device could not start, or was ended from outside.") from None
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)


_work: Callable[[Any], Any]
_failure: BaseException | None = None


def _start(make: Callable[..., Callable[[Any], Any]], job: Any, device: str, threads: int) -> None:
    """Make a process's worker; what goes wrong is raised by the first item, since a pool hides it."""
    global _work, _failure
    torch.set_num_threads(threads)
    try:
        _work = make(job, device)
    except Exception as error:
        _failure = error


def _call(item: Any) -> Any:
    global _failure
    if _failure is not None:
        raise _failure
    try:
        return _work(item)
    except KeyboardInterrupt as canceled:
        _failure = canceled  # the next item waits in this process's queue already, and is not begun
        raise
