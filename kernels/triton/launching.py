"""What every launch needs: the tensor's own GPU, a count of launches, sizes of blocks, how many programs fill a GPU."""

import functools
from collections import Counter
from typing import Any

import torch
import triton
from torch import Tensor

from .interpreter import interpreted

#: Kernel's name -> launches in this process: the tests' evidence that a kernel ran, and not something in its place.
launches: Counter[str] = Counter()

#: Programs of a reduction where there is no GPU, so that the interpreter runs several and then the second stage.
_INTERPRETED_PROGRAMS = 4


def launch(kernel: Any, grid: tuple[int, ...], beside: Tensor, *arguments: Any, **constants: Any) -> None:
    """Launch a kernel on the GPU that holds ``beside``, whichever GPU is the current one.

    Args:
        kernel: a function decorated with ``triton.jit``.
        grid: programs on each axis; nothing is launched when one of them is 0.
        beside: any tensor of the call.
        arguments: the kernel's positional arguments.
        constants: its ``constexpr`` arguments and the compiler's options.
    """
    if 0 in grid:
        return
    with torch.cuda.device_of(beside):
        # Products and sums fuse by choice: Triton's default changes with 3.10.
        kernel[grid](*arguments, enable_fp_fusion=True, **constants)
    launches[kernel.fn.__name__] += 1


def target_architecture() -> int | str | None:
    """What the next launch is compiled for: 10 * major + minor of an NVIDIA GPU, "amd", or None in the interpreter."""
    if interpreted():
        return None
    target = triton.runtime.driver.active.get_current_target()
    return int(target.arch) if target.backend == "cuda" else "amd"


def block_size(width: int) -> int:
    """The power of two that holds a row."""
    return int(triton.next_power_of_2(width))


def warps_for(elements: int) -> int:
    """Sixteen elements per thread: two 16-byte loads of each input in half precision."""
    return min(max(elements // 512, 1), 16)


def rows_per_program(rows: int, device: torch.device, per_processor: int, at_least: int = 1) -> int:
    """How many of ``rows`` one program of a two-stage reduction takes.

    Args:
        rows: of the whole reduction.
        device: where it runs.
        per_processor: programs for each multiprocessor; as many as fit on it at once make one wave.
        at_least: fewer rows than this are not worth a program and its partial sums.
    """
    programs = _INTERPRETED_PROGRAMS if device.type != "cuda" else per_processor * _processors(device)
    return max(triton.cdiv(rows, programs), at_least)


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
