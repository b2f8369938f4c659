"""Frames made side by side: several threads on a CPU, where the steps of one frame are too small to share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(make: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> Iterator[Result]:
    """The results of ``make`` for all items, in their order.

    On a CPU with as many threads as PyTorch has, each with one item; items are taken when a thread is about to be free.
    Elsewhere one after the other.
    """
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    if workers == 1:
        yield from map(make, items)
        return
    rest = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[Result]] = deque(pool.submit(make, item) for item in islice(rest, workers))
        try:
            while running:
                result = running.popleft().result()
                running.extend(pool.submit(make, item) for item in islice(rest, 1))
                yield result
        finally:
            for future in running:
                future.cancel()
