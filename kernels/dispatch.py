"""Which back end runs a step: its Triton kernels, or the plain PyTorch that stands beside each public function.

``auto`` takes Triton on GPUs where it works and what it is given fits its kernels, the reference everywhere else.
``MFORCE_KERNELS`` or :func:`back_end` asks for one of them; ``triton`` on a CPU is the interpreter's. A step that falls
back says why once. Reasons are computed once a combination and are constants to ``torch.compile``.
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from .availability import constant_when_traced, log_once, triton_problem

ENVIRONMENT_VARIABLE = "MFORCE_KERNELS"
BACK_ENDS = ("auto", "reference", "triton")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Limit(NamedTuple):
    """What an operation's kernels take: at most this many features, counted as ``unit`` says."""

    width: int
    unit: str


#: A row, or a head, lives in the registers of one program; SwiGLU cuts its rows into blocks.
LIMITS = {
    "adaln": Limit(8192, "channels"),
    "gated_residual": Limit(8192, "channels"),
    "gated_residual_adaln": Limit(8192, "channels"),
    "qk_norm_rope": Limit(512, "features of a head"),
    "swiglu": Limit(2**20, "channels"),
}

_asked = os.environ.get(ENVIRONMENT_VARIABLE, "auto")


@contextmanager
def back_end(name: str) -> Iterator[None]:
    """Ask for a back end inside the ``with`` block, whatever the environment says; not for several threads."""
    global _asked
    before, _asked = _asked, name
    try:
        yield
    finally:
        _asked = before


def reason_against_triton(
    asked: str, operation: str, device: torch.device, dtype: torch.dtype, width: int
) -> str | None:
    """Why the reference runs, as a phrase; None where Triton does.

    Raises:
        ValueError: ``asked`` is no back end.
    """
    if asked not in BACK_ENDS:
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(BACK_ENDS)}, got {asked!r}")
    if asked == "reference":
        return f"{ENVIRONMENT_VARIABLE} asks for it"
    if asked == "auto" and device.type == "cpu":
        return "it is made for CPUs"
    limit = LIMITS[operation]
    if dtype not in DTYPES:
        return f"the kernels have no {str(dtype).removeprefix('torch.')}"
    if width > limit.width:
        return f"{width} {limit.unit} are more than the kernels' {limit.width}"
    return triton_problem(device)


def kernel_report(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> dict[str, str | None]:
    """Every operation: None where Triton runs it on ``device`` at usual widths, else why the reference does."""
    return {name: reason_against_triton(_asked, name, device, dtype, 64) for name in LIMITS}


@constant_when_traced
def _decide(asked: str, operation: str, device: str, index: int | None, dtype: torch.dtype, width: int) -> bool:
    return _decided(asked, operation, device, index, dtype, width)


@functools.cache
def _decided(asked: str, operation: str, kind: str, index: int | None, dtype: torch.dtype, width: int) -> bool:
    reason = reason_against_triton(asked, operation, _device(kind, index), dtype, width)
    expected = asked == "reference" or (asked == "auto" and kind == "cpu")
    if reason is not None and not expected:
        log_once(f"{operation} runs on its PyTorch reference: {reason}.")
    if reason is None:
        _register_operators()
    return reason is None


@functools.cache
def _register_operators() -> None:
    """Takes a tenth of a second, which only those pay who use the kernels, and not while a compiler traces."""
    from . import adaln_ops, rope_ops, swiglu_ops  # noqa: F401


def _device(kind: str, index: int | None) -> torch.device:
    return torch.device(kind) if index is None else torch.device(kind, index)


@constant_when_traced
def _falls_back(operation: str, reason: str) -> bool:
    log_once(f"{operation} runs on its PyTorch reference: {reason}.")
    return False


def on_triton(operation: str, width: int, *tensors: Tensor) -> bool:
    """Whether ``operation`` on these tensors runs on Triton."""
    first = tensors[0]
    device, dtype = first.device, first.dtype
    if not _decide(_asked, operation, device.type, device.index, dtype, width):
        return False
    for tensor in tensors:
        if tensor.dtype != dtype or tensor.device != device:
            return _falls_back(operation, "its inputs differ in dtype or device")
        if tensor.stride(-1) != 1:
            return _falls_back(operation, "the last axis of an input is not contiguous")
    return first.numel() > 0


def recorded(*tensors: Tensor) -> bool:
    """Whether autograd or a tracer watches: then nothing may be overwritten and custom operators stand for kernels."""
    if torch.compiler.is_compiling() or type(tensors[0]) is not Tensor:
        return True
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def may_overwrite(x: Tensor) -> bool:
    """Whether a step may write its result over its input: nothing is recorded, now or through another input."""
    return not torch.is_grad_enabled() and not recorded(x)
