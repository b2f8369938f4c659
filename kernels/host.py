"""The attention function of a program that runs the model, such as ComfyUI; see :class:`.use_attention`."""

import torch
from torch import Tensor

from .registry import BackEnd, Constraints
from .spec import scope


def _attention(q: Tensor, k: Tensor, v: Tensor, out: Tensor | None) -> Tensor:
    assert scope.host is not None
    attended = scope.host(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return attended if out is None else out.copy_(attended)


def _missing(device: torch.device) -> str | None:
    return None if scope.host is not None else "no program that runs the model has set a function"


BACK_ENDS = (BackEnd("host", "attention", _attention, Constraints(gradient=False), _missing),)
