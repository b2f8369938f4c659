"""Triton kernels for every operation, forward and backward.

Only the modules of this package import Triton, and only when a kernel is asked for; this one is always imported.
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from ..registry import FLOATS, BackEnd, Constraints, first_line
from .interpreter import interpreted

#: Oldest release whose language the kernels are written in.
MIN_TRITON = (3, 0)

#: Oldest NVIDIA generation that Triton supports, and the first whose tensor cores it uses.
MIN_CAPABILITY = (8, 0)

#: Programs of a launch on the second and the third axis of its grid. All kernels but attention's have the batch there;
#: blocks of a row and heads, which are the other of the two, are fewer at every width below.
MAX_GRID = 65_535

_operators: ModuleType | None = None


def missing(device: torch.device) -> str | None:
    """Why Triton kernels cannot run on ``device``, as a phrase; None where they can, and then they are loaded.

    Found out by compiling and launching one trivial kernel, which is what fails on a machine whose driver, compiler or
    Triton build do not fit each other.
    """
    index = device.index
    if device.type == "cuda" and index is None:
        index = torch.cuda.current_device()
    return _probe(device.type, index)


@functools.cache
def _probe(device_type: str, index: int | None) -> str | None:
    global _operators
    if device_type != "cuda" and not (device_type == "cpu" and interpreted()):
        return f"Triton has no code for {device_type} tensors"
    try:
        import triton
    except Exception as error:  # a broken installation raises more than ImportError
        return f"Triton cannot be imported ({type(error).__name__}: {first_line(error)})"
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < MIN_TRITON:
        return f"Triton {triton.__version__} is older than {'.'.join(map(str, MIN_TRITON))}"
    try:
        from . import operators, probe

        probe.launch(torch.device(device_type) if index is None else torch.device(device_type, index))
    except Exception as error:  # compiler, driver and launcher each have their own
        return f"a trial Triton kernel failed ({type(error).__name__}: {first_line(error)})"
    _operators = operators
    return None


def _operator(name: str) -> Callable[..., Any]:
    """The function ``name`` of :mod:`.operators`, which exists once :func:`missing` has found nothing."""

    def run(*arguments: Any) -> Any:
        return getattr(_operators, name)(*arguments)

    return run


def _back_end(op: str, max_width: int) -> BackEnd:
    attention = op == "attention"
    constraints = Constraints(
        dtypes=FLOATS,
        min_capability=MIN_CAPABILITY,
        max_width=max_width,
        max_batch=None if attention else MAX_GRID,  # that one counts all its programs on the first axis
        uniform=not attention,  # and copies what is not contiguous
    )
    return BackEnd("triton", op, _operator(op), constraints, missing, candidate=True, counts_itself=True)


#: A row, or a head, lives in the registers of one program; SwiGLU cuts its rows into blocks.
BACK_ENDS = (
    _back_end("adaln", 8192),
    _back_end("gated_residual", 8192),
    _back_end("gated_residual_adaln", 8192),
    _back_end("qk_norm_rope", 512),
    _back_end("swiglu", 2**20),
    _back_end("attention", 256),
)
