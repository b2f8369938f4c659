"""Attention in plain PyTorch, the attention matrix formed."""

import torch
from torch import Tensor

#: Scores at a time on a CPU: few enough for its outer cache, so many that threads seldom wait for each other. With
#: 256 queries at a time, 2560 keys take 1.7 times as long on a machine that is busy with other work, and as long on a
#: quiet one.
_SCORES = 2**22


def attend(q: Tensor, k: Tensor, v: Tensor, out: Tensor | None) -> Tensor:
    """(B, L, H, D) to (B, Lq, H * D); scores are rounded to the inputs' dtype, their softmax is float32 inside."""
    recorded = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if q.device.type == "cpu" and not recorded and not torch.compiler.is_compiling():
        attended = _by_blocks(q, k, v, out)
    else:
        attended = _at_once(q, k, v)
    if out is None or attended is out:
        return attended
    return out.copy_(attended)


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
