"""The public function."""

import torch
from torch import Tensor

from ..availability import constant_when_traced
from .backends import attend
from .call import Call
from .choice import automatic, on_cpu, requested
from .scope import check_name, environment_choice, scope


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Softmax attention, scale D**-0.5.

    Args:
        q, k, v: (B, L, H, D), strided views are fine; k and v may have a length of their own.
        out: (B, Lq, H * D) to write to, last axis contiguous, rows may be strided. Left alone where a gradient is
            needed, so use what is returned.
        backend: a back end's name or ``auto``; None leaves it to :class:`.use_attention`, then to the environment
            variable ``MFORCE_ATTENTION``.

    Returns:
        (B, Lq, H * D), heads concatenated; ``out`` where it was written.

    Raises:
        ValueError: shapes or dtypes that do not fit each other, an unknown back end.
    """
    _check(q, k, v, out)
    call = Call.of(q, k, v)
    if call.backward:
        out = None
    if q.numel() == 0 or k.numel() == 0:
        return _nothing(q, k, v, out)
    asked = check_name(backend) if backend is not None else scope.backend or environment_choice
    host = scope.host
    if torch.compiler.is_compiling():
        kind = (call.dtype, call.features, call.backward)
        name = _traced_choice(q.device.type, q.device.index, *kind, asked, host is not None)
        name = name or on_cpu(call, compiled=True)
    else:
        passive = _is_passive(q)
        name = requested(call, asked, host is not None, passive) or automatic(call, passive)
    return attend(name, q, k, v, out, host)


def _check(q: Tensor, k: Tensor, v: Tensor, out: Tensor | None) -> None:
    batch, length, heads, features = q.shape
    if k.shape != v.shape or k.shape[0] != batch or k.shape[2:] != q.shape[2:]:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} do not fit each other")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v differ in dtype: {q.dtype}, {k.dtype}, {v.dtype}")
    if out is not None:
        if out.shape != (batch, length, heads * features) or out.dtype != q.dtype:
            wanted = (batch, length, heads * features)
            raise ValueError(f"out must be {wanted} {q.dtype}, got {tuple(out.shape)} {out.dtype}")
        if out.stride(-1) != 1 and out.shape[-1] > 1:
            raise ValueError("the last axis of out must be contiguous")


def _nothing(q: Tensor, k: Tensor, v: Tensor, out: Tensor | None) -> Tensor:
    """No queries, or no keys and therefore zeros, still part of the graph."""
    if out is not None:
        return out.zero_()
    zeros = torch.zeros_like(q).flatten(2)
    return zeros + (0 * k.sum() + 0 * v.sum() + 0 * q[..., :0].sum()).to(q.dtype) if q.requires_grad else zeros


def _is_passive(q: Tensor) -> bool:
    """Whether tensors have no values to time with, or no time may be taken."""
    if type(q) not in (Tensor, torch.nn.Parameter):
        return True
    return q.device.type == "cuda" and torch.cuda.is_current_stream_capturing()


@constant_when_traced
def _traced_choice(
    device: str,
    index: int | None,
    dtype: torch.dtype,
    features: int,
    backward: bool,
    asked: str,
    with_host: bool,
) -> str | None:
    """The choice without the sizes, which may be symbols; None: it is the CPU's rule."""
    place = torch.device(device) if index is None else torch.device(device, index)
    call = Call(place, dtype, 0, 0, 0, 0, features, backward)
    name = requested(call, asked, with_host, passive=True)
    return name if name is not None or device == "cpu" else automatic(call, passive=True)
