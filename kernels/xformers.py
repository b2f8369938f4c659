"""xformers' attention, where it is installed."""

import functools

import torch
from torch import Tensor

from .registry import BackEnd, Constraints, first_line


def _attention(q: Tensor, k: Tensor, v: Tensor, out: Tensor | None) -> Tensor:
    from xformers.ops import memory_efficient_attention

    attended = memory_efficient_attention(q, k, v).flatten(2)
    return attended if out is None else out.copy_(attended)


@functools.cache
def _missing(device: torch.device) -> str | None:
    try:
        import xformers.ops  # noqa: F401
    except Exception as error:  # built for another PyTorch it raises what it likes
        return f"xformers cannot be imported ({type(error).__name__}: {first_line(error)})"
    return None


BACK_ENDS = (
    BackEnd(
        "xformers",
        "attention",
        _attention,
        Constraints(devices=frozenset({"cuda"})),
        _missing,
        candidate=True,
        needs_trial=True,
    ),
)
