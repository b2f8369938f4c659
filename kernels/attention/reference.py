"""Attention in plain PyTorch, the attention matrix formed."""

import torch
from torch import Tensor

from .masking import close_empty_rows, open_empty_rows

#: Scores at a time on a CPU: few enough for its outer cache, so many that threads seldom wait for each other. With
#: 256 queries at a time, 2560 keys take 1.7 times as long on a machine that is busy with other work, and as long on a
#: quiet one.
_SCORES = 2**22


def attend(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, out: Tensor | None) -> Tensor:
    """(B, L, H, D) to (B, Lq, H * D); scores are rounded to the inputs' dtype, their softmax is float32 inside."""
    some = None
    if key_mask is not None:
        key_mask, some = open_empty_rows(key_mask)
    recorded = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if q.device.type == "cpu" and not recorded and not torch.compiler.is_compiling():
        attended = _by_blocks(q, k, v, key_mask, out)
    else:
        attended = _at_once(q, k, v, key_mask)
    if some is not None:
        attended = close_empty_rows(attended, some)
    if out is None or attended is out:
        return attended
    return out.copy_(attended)


def _at_once(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))
    scores = q @ k.transpose(-1, -2)
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None, None], float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _by_blocks(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, out: Tensor | None) -> Tensor:
    batch, length, heads, features = q.shape
    if out is None:
        out = q.new_empty(batch, length, heads * features)
    into = out.unflatten(2, (heads, features))
    step = max(1, _SCORES // k.shape[1])
    q = q * features**-0.5
    for sample in range(batch):
        shut = None if key_mask is None else ~key_mask[sample]
        for head in range(heads):
            keys, values = k[sample, :, head].t(), v[sample, :, head]
            for start in range(0, length, step):
                rows = slice(start, start + step)
                scores = q[sample, rows, head] @ keys
                if shut is not None:
                    scores.masked_fill_(shut, float("-inf"))
                torch.mm(scores.softmax(-1), values, out=into[sample, rows, head])
    return out
