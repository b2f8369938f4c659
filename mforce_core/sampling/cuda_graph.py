"""A CUDA graph of work that is the same every time: its hundreds of launches become one."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from ..reasons import reason_of

Outputs = tuple[Tensor, ...]


class Graph(Protocol):
    def replay(self) -> None: ...


class Replay:
    """A function of tensors as a graph: it reads its inputs, and writes its outputs, at addresses of its own.

    ``replays`` counts the launches.
    """

    def __init__(self, graph: Graph, inputs: Sequence[Tensor | None], outputs: Outputs) -> None:
        self.graph, self.inputs, self.outputs = graph, inputs, outputs
        self.replays = 0

    def __call__(self, *inputs: Tensor | None) -> Outputs:
        """What the function makes of ``inputs``, in new tensors: the next replay overwrites the graph's own."""
        for address, value in zip(self.inputs, inputs, strict=True):
            if address is not None and value is not None:
                address.copy_(value)
        self.graph.replay()
        self.replays += 1
        return tuple(address.clone() for address in self.outputs)


def graph_of(function: Callable[..., Outputs], inputs: Sequence[Tensor | None]) -> Replay | None:
    """Record ``function``, which must have run on such inputs before: what it does only once must be over.

    Returns:
        None, and one line in the log, where no graph can be made. A replay sees what changed in other tensors that the
        function reads, weights for instance, as long as they stay where they are.
    """
    addresses = [None if value is None else value.clone() for value in inputs]
    device = next(value.device for value in inputs if value is not None)
    recorded = record(lambda: function(*addresses), device)
    return None if recorded is None else Replay(recorded[0], addresses, recorded[1])


def record(work: Callable[[], Outputs], device: torch.device) -> tuple[Graph, Outputs] | None:
    """A graph of ``work`` and the tensors that it returned, which get their values at the first replay."""
    if device.type != "cuda":
        _log(f"{device.type} devices have none")
        return None
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.device(device), _undone(device):
            stream = torch.cuda.Stream(device)  # PyTorch's own stream for captures is on the device that it saw first
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                outputs = work()
    except RuntimeError as error:  # work that waits for the device, an old driver, too little memory
        _log(reason_of(error))
        return None
    return graph, outputs


@contextmanager
def _undone(device: torch.device) -> Iterator[None]:
    """Put back what a capture that fails leaves behind.

    PyTorch marks the state of the default generator as capturing and makes another stream the current one, and skips
    the way back where ending the capture raises: the next draw of random numbers would fail. So the capture gets a copy
    of the generator's state, and the stream of before is set again.
    """
    before = torch.cuda.current_stream(device)
    generator = torch.cuda.default_generators[before.device_index]
    state = generator.graphsafe_get_state()
    generator.graphsafe_set_state(generator.clone_state())
    try:
        yield
    finally:
        torch.cuda.set_stream(before)
        generator.graphsafe_set_state(state)


def _log(reason: str) -> None:
    logging.getLogger("mforce").info("The steps run without a CUDA graph: %s.", reason)
