"""What every launch needs: the tensor's own GPU, sizes of blocks, and how many programs fill the device."""

import functools

import torch
import triton
from torch import Tensor

#: Programs of a reduction for each multiprocessor: enough to hide latency, few enough for a short second stage.
_PROGRAMS_PER_PROCESSOR = 4

#: Programs where there is no GPU, so that the interpreter goes through several and through the second stage.
_INTERPRETED_PROGRAMS = 4


def on_device_of(x: Tensor) -> torch.cuda.device_of:
    """Context in which the current GPU, where Triton launches, is x's."""
    return torch.cuda.device_of(x)


def block_size(width: int) -> int:
    """The power of two that holds a row."""
    return int(triton.next_power_of_2(width))


def warps_for(elements: int) -> int:
    """Sixteen elements a thread: two 16-byte loads of each input in half precision."""
    return min(max(elements // 512, 1), 16)


def rows_per_program(rows: int, device: torch.device) -> int:
    """How many of ``rows`` one program of a two-stage reduction takes."""
    return max(triton.cdiv(rows, _reduction_programs(device)), 1)


@functools.cache
def _reduction_programs(device: torch.device) -> int:
    if device.type != "cuda":
        return _INTERPRETED_PROGRAMS
    return _PROGRAMS_PER_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
