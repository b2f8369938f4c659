"""Who watches a call: autograd, a compiler, or a CUDA graph that is being captured."""

from collections.abc import Callable

import torch
from torch import Tensor


def constant_when_traced(function: Callable) -> Callable:
    """Make a compiler call ``function`` while it traces and keep the result as a constant.

    What ``torch.compiler.assume_constant_result`` does, which imports the whole compiler to do it: a second.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether autograd records what is done with any of ``tensors``."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def recorded(*tensors: Tensor) -> bool:
    """Whether autograd or a tracer watches: then nothing may be overwritten and custom operators stand for kernels."""
    if torch.compiler.is_compiling() or type(tensors[0]) is not Tensor:
        return True
    return needs_gradient(*tensors)


def may_overwrite(x: Tensor) -> bool:
    """Whether a step may write its result over its input: nothing is recorded, now or through another input."""
    return not torch.is_grad_enabled() and not recorded(x)


def is_passive(x: Tensor) -> bool:
    """Whether nothing may be timed now: ``x`` has no values, or a CUDA graph is being captured."""
    if type(x) not in (Tensor, torch.nn.Parameter):
        return True
    return x.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
