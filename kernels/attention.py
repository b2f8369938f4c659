"""Attention over all tokens of all streams."""

import torch
from torch import Tensor

from .choice import dispatch
from .drawing import Draw
from .registry import Call, Op, register_op
from .spec import AUTO, asked_for, check_name, scope
from .tracing import needs_gradient

#: Scores at a time on a CPU: few enough for its outer cache, so many that threads seldom wait for each other. With
#: 256 queries at a time, 2560 keys take 1.7 times as long on a machine that is busy with other work, and as long on a
#: quiet one.
_SCORES = 2**22

#: Up to this many tokens a CPU forms the whole attention matrix where there are gradients: the backward pass of
#: PyTorch's own function takes longer than that, but the matrix grows with the square.
_WHOLE_MATRIX = {torch.bfloat16: 1024, torch.float32: 512}


def attention(q: Tensor, k: Tensor, v: Tensor, *, out: Tensor | None = None, backend: str | None = None) -> Tensor:
    """Softmax attention, scale D**-0.5.

    Args:
        q, k, v: (B, L, H, D), strided views are fine; k and v may have a length of their own.
        out: (B, Lq, H * D) to write to, last axis contiguous, rows may be strided. Left alone where a gradient is
            needed, so use what is returned.
        backend: a back end's name or ``auto``; None leaves it to ``with`` blocks and the environment.

    Returns:
        (B, Lq, H * D), heads concatenated; ``out`` where it was written.

    Raises:
        ValueError: shapes or dtypes that do not fit each other, an unknown back end.
        BackEndUnavailable: a back end was asked for by name and cannot run.
    """
    _check(q, k, v, out)
    gradient = needs_gradient(q, k, v)
    if gradient:
        out = None
    if q.numel() == 0 or k.numel() == 0:
        return _nothing(q, k, v, out)
    asked = asked_for("attention", scope.spec) if backend is None else check_name("attention", backend)
    if asked == AUTO and scope.host is not None and not gradient:
        asked = "host"
    sizes = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    return dispatch(ATTENTION, (q, k, v), (q, k, v, out), q.shape[3], sizes, asked)


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
    if not needs_gradient(q, k, v):
        return zeros
    return zeros + q[..., :0].sum() + k[..., :0].sum() + v[..., :0].sum()


def _reference(q: Tensor, k: Tensor, v: Tensor, out: Tensor | None) -> Tensor:
    """The attention matrix formed; scores are rounded to the inputs' dtype, their softmax is float32 inside."""
    if q.device.type == "cpu" and not needs_gradient(q, k, v) and not torch.compiler.is_compiling():
        return _by_blocks(q, k, v, out)
    attended = _at_once(q, k, v)
    return attended if out is None else out.copy_(attended)


def _at_once(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))
    scores = q @ k.transpose(-1, -2)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _by_blocks(q: Tensor, k: Tensor, v: Tensor, out: Tensor | None) -> Tensor:
    batch, length, heads, features = q.shape
    if out is None:
        out = q.new_empty(batch, length, heads * features)
    into = out.unflatten(2, (heads, features))
    step = max(1, _SCORES // k.shape[1])
    q = q * features**-0.5
    for sample in range(batch):
        for head in range(heads):
            keys, values = k[sample, :, head].t(), v[sample, :, head]
            for start in range(0, length, step):
                rows = slice(start, start + step)
                scores = q[sample, rows, head] @ keys
                torch.mm(scores.softmax(-1), values, out=into[sample, rows, head])
    return out


def _on_cpu(call: Call, compiled: bool) -> str:
    """A rule instead of a measurement: see docs/kernels/attention.md for the times behind it."""
    _, _, queries, keys = call.sizes
    if call.gradient or (compiled and call.dtype == torch.bfloat16):
        whole = queries * keys <= _WHOLE_MATRIX.get(call.dtype, 0) ** 2
        return "reference" if whole else "sdpa"
    return "reference" if call.dtype == torch.bfloat16 and queries > 1 else "sdpa"


def _draw(call: Call) -> tuple[Tensor, Tensor, Tensor, None]:
    batch, heads, queries, keys = call.sizes
    draw = Draw(call)
    q, k, v = (draw(batch, length, heads, call.width) for length in (queries, keys, keys))
    return q, k, v, None


ATTENTION = register_op(
    Op(
        "attention",
        {"q": "B Lq H D", "k": "B Lk H D", "v": "B Lk H D", "return": "B Lq H*D"},
        "features of a head",
        ("batch", "heads", "queries", "keys"),
        _draw,
        default="sdpa",
        yardstick="sdpa",
        on_cpu=_on_cpu,
    ),
    _reference,
)
