"""Batches that are made on a GPU are made beside the steps, not in line with them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


class Beside:
    """A stream of a GPU for the thread that makes batches; on a CPU there is none, and nothing to do.

    Kernels of two streams run in any order, and a stream gives memory that Python has let go of to its own next tensor.
    So what is made here is handed over before the steps use it: their stream waits for it, and its memory is not given
    away until they are done.

    Args:
        device: whose current stream is that of the steps; what is on its way to the device there is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def making(self) -> AbstractContextManager[object]:
        """For the thread that makes batches, around that."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """For the thread of the steps, when what it was given has been made, before it is used."""
        if self._stream is None:
            return
        current = torch.cuda.current_stream(self._stream.device)
        current.wait_stream(self._stream)
        for tensor in tensors:
            tensor.record_stream(current)
