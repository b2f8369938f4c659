"""A CUDA graph of work that is the same every time: its hundreds of launches become one.

The work reads and writes the same addresses at every replay, so its inputs must be buffers that are filled anew.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import torch


class Graph(Protocol):
    def replay(self) -> None: ...


#: recorder(work, device) -> graph, None where none can be made.
Recorder = Callable[[Callable[[], None], torch.device], Graph | None]


def record(work: Callable[[], None], device: torch.device) -> Graph | None:
    """Record ``work``, which must have run before: what it does only once must be over. None, and one line in the log,
    where that is not possible.

    Nothing runs on the device; tensors that ``work`` made get their values at the first replay.
    """
    if device.type != "cuda":
        _log(f"{device.type} devices have none")
        return None
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.device(device), torch.cuda.graph(graph):
            work()
    except RuntimeError as error:  # work that waits for the device, an old driver, too little memory
        _log((str(error).strip().splitlines() or [type(error).__name__])[0])
        return None
    return graph


def _log(reason: str) -> None:
    logging.getLogger("mforce").info("The steps run without a CUDA graph: %s.", reason)
