"""The back ends: how each is called, and what is known against it without running it."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ..availability import triton_problem
from . import reference
from .call import Call

TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_FEATURES = 256

#: PyTorch's own implementations of its function; older releases lack some.
_SDPA = {
    "sdpa_cudnn": "CUDNN_ATTENTION",
    "sdpa_flash": "FLASH_ATTENTION",
    "sdpa_efficient": "EFFICIENT_ATTENTION",
    "sdpa_math": "MATH",
}

NAMES = ("triton", "sdpa", *_SDPA, "xformers", "reference", "host")

#: Worth timing on a GPU; ``sdpa`` comes first, what the others' results are held against.
CANDIDATES = ("sdpa", "triton", "sdpa_cudnn", "sdpa_flash", "sdpa_efficient", "xformers")


def _sdpa_kernel(name: str) -> Any:
    return getattr(SDPBackend, _SDPA[name], None)


def _triton(q: Tensor, k: Tensor, v: Tensor, out: Tensor | None) -> Tensor:
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    from .ops import flash_attention, flash_attention_into

    if out is None:
        return flash_attention(q, k, v)[0]
    flash_attention_into(q, k, v, out)
    return out


def _sdpa(q: Tensor, k: Tensor, v: Tensor, out: Tensor | None, kernel: Any = None) -> Tensor:
    with nullcontext() if kernel is None else sdpa_kernel(kernel):
        heads = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    attended = heads.transpose(1, 2).flatten(2)
    return attended if out is None else out.copy_(attended)


def _xformers(q: Tensor, k: Tensor, v: Tensor, out: Tensor | None) -> Tensor:
    from xformers.ops import memory_efficient_attention

    attended = memory_efficient_attention(q, k, v).flatten(2)
    return attended if out is None else out.copy_(attended)


def attend(
    name: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor | None = None,
    host: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Run one back end; tensors as in :func:`.attention`, ``out`` only where no gradient is needed."""
    if name == "triton":
        return _triton(q, k, v, out)
    if name == "sdpa":
        return _sdpa(q, k, v, out)
    if name in _SDPA:
        return _sdpa(q, k, v, out, _sdpa_kernel(name))
    if name == "xformers":
        return _xformers(q, k, v, out)
    if name == "host" and host is not None:
        attended = host(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return attended if out is None else out.copy_(attended)
    return reference.attend(q, k, v, out)


def problem(name: str, call: Call) -> str | None:
    """What is known against a back end for such a call, as a phrase; None: it may be tried."""
    if name == "triton":
        if call.dtype not in TRITON_DTYPES:
            return f"its kernels have no {str(call.dtype).removeprefix('torch.')}"
        if call.features > MAX_FEATURES:
            return f"its kernels take heads of at most {MAX_FEATURES} features, not {call.features}"
        against = triton_problem(call.device)
        if against is None:
            from . import ops  # noqa: F401  (registers the operators, before a compiler traces a call)
        return against
    if name in _SDPA and _sdpa_kernel(name) is None:
        return f"PyTorch {torch.__version__} does not have it"
    if name == "xformers":
        try:
            import xformers.ops  # noqa: F401
        except Exception as error:  # built for another PyTorch it raises what it likes
            return f"xformers cannot be imported ({type(error).__name__}: {error})"
    return None
