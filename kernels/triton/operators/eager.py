"""Kernels under eager autograd, without the way through PyTorch's dispatcher.

That way takes Python longer than all else that it does for a call but the launch, most of all with lists of tensors
(docs/benchmarks.md). Where nothing but autograd looks on, one function of autograd does the same with the same kernels;
compilers, dispatch modes and subclasses of tensors meet the operators.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode


class Formula(NamedTuple):
    """What an operator is made of, as :func:`torch.library.custom_op` and its ``register_autograd`` take it."""

    run: Callable[..., Any]
    setup: Callable[[Any, tuple, Any], None]
    #: Gradients, one for each argument; a list for a list of tensors.
    backward: Callable[..., tuple]


def unwatched(*tensors: Tensor) -> bool:
    """Whether nothing but eager autograd sees what is done with ``tensors``."""
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return False
    return all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)


def unrecorded(*tensors: Tensor) -> bool:
    """The same in a backward pass that is not recorded itself: a recorded one meets operators, which say that they have
    no gradient of their gradient."""
    return not torch.is_grad_enabled() and unwatched(*tensors)


def contiguous_rows(x: Tensor) -> Tensor:
    """Kernels read a last axis without gaps; a gradient may come expanded from a sum, or strided from a slice."""
    return x if x.stride(-1) == 1 else x.contiguous()


def differentiable(formula: Formula, *arguments: Any) -> Any:
    """``formula.run(*arguments)``, recorded by autograd."""
    counts, spread = _spread(arguments)
    return _Recorded.apply(formula, counts, *spread)


class _Recorded(torch.autograd.Function):
    """Autograd sees no tensor inside a list: lists come and go spread out.

    It has no ``setup_context``, for which PyTorch would inspect a signature in every call. PyTorch's operators have
    none either, so ``torch.func`` transforms neither.
    """

    @staticmethod
    def forward(ctx: Any, formula: Formula, counts: tuple[int, ...], *spread: Any) -> Any:
        arguments = _gathered(counts, spread)
        output = formula.run(*arguments)
        ctx.formula = formula
        formula.setup(ctx, arguments, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        return None, None, *_spread(ctx.formula.backward(ctx, *grads))[1]


#: In place of a list's length: the argument is none.
_ALONE = -1


def _spread(arguments: Sequence[Any]) -> tuple[tuple[int, ...], list[Any]]:
    """The length of each list of tensors, and all values one after the other."""
    counts, values = [], []
    for argument in arguments:
        if isinstance(argument, list) and (not argument or isinstance(argument[0], Tensor)):
            counts.append(len(argument))
            values.extend(argument)
        else:
            counts.append(_ALONE)
            values.append(argument)
    return tuple(counts), values


def _gathered(counts: tuple[int, ...], values: Sequence[Any]) -> tuple[Any, ...]:
    arguments, start = [], 0
    for count in counts:
        arguments.append(values[start] if count == _ALONE else list(values[start : start + count]))
        start += 1 if count == _ALONE else count
    return tuple(arguments)
