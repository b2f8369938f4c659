"""PyTorch's attention function: its own pick of an implementation, and each implementation by name."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from .registry import BackEnd, Constraints

#: Older releases lack some of them.
_NAMED = {
    "sdpa_cudnn": "CUDNN_ATTENTION",
    "sdpa_flash": "FLASH_ATTENTION",
    "sdpa_efficient": "EFFICIENT_ATTENTION",
    "sdpa_math": "MATH",
}


def _sdpa(q: Tensor, k: Tensor, v: Tensor, out: Tensor | None) -> Tensor:
    heads = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    attended = heads.transpose(1, 2).flatten(2)
    return attended if out is None else out.copy_(attended)


def _named(kernel: str, q: Tensor, k: Tensor, v: Tensor, out: Tensor | None) -> Tensor:
    with sdpa_kernel(getattr(SDPBackend, kernel)):
        return _sdpa(q, k, v, out)


def _missing(kernel: str, device: torch.device) -> str | None:
    return None if hasattr(SDPBackend, kernel) else f"PyTorch {torch.__version__} does not have it"


BACK_ENDS = (
    BackEnd("sdpa", "attention", _sdpa, candidate=True),
    *(
        BackEnd(
            name,
            "attention",
            partial(_named, kernel),
            Constraints(devices=frozenset({"cuda", "cpu"})),
            partial(_missing, kernel),
            candidate=name != "sdpa_math",
            needs_trial=True,
        )
        for name, kernel in _NAMED.items()
    ),
)
