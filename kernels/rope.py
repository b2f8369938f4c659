"""RMSNorm on queries and keys, then rotary position embedding (Su et al., arXiv 2104.09864) over several axes."""

from collections.abc import Sequence

import torch
from torch import Tensor

RMS_NORM_EPS = 1e-6


def rope_table(positions: Tensor, axes_dim: Sequence[int], theta: float) -> Tensor:
    """Cosines and sines of every token's rotation angles.

    The angle of pair k on an axis of ``dim`` features is ``position * theta ** (-2k / dim)``; axes are concatenated.

    Args:
        positions: (L, axes), the token's coordinate on each axis.
        axes_dim: features of a head that each axis rotates; they sum to the head size D.
        theta: base of the geometric progression of frequencies.

    Returns:
        (2, L, D / 2) float32: cosines, sines.
    """
    # Apple's GPUs have no float64.
    dtype = torch.float32 if positions.device.type == "mps" else torch.float64
    angles = []
    for axis, dim in enumerate(axes_dim):
        exponent = torch.arange(0, dim, 2, dtype=dtype, device=positions.device) / dim
        angles.append(positions[:, axis, None].to(dtype) * theta**-exponent)
    angle = torch.cat(angles, dim=-1)
    return torch.stack((angle.cos(), angle.sin())).to(torch.float32)


def _rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + RMS_NORM_EPS)
    return wide.to(x.dtype) * scale.to(x.dtype)


def _rotate(x: Tensor, table: Tensor) -> Tensor:
    cos, sin = table[:, :, None]
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2).to(x.dtype)


def qk_norm_rope(qkv: Tensor, query_scale: Tensor, key_scale: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values from what the packed Linear wrote, ready for attention.

    The norm is taken in float32 and cast back before its scale, the rotation in float32: the order decides what
    bfloat16 results look like.

    Args:
        qkv: (B, L, 3, H, D), a strided view is fine.
        query_scale, key_scale: (D,).
        table: (2, L, D / 2) from :func:`rope_table`; rotates interleaved pairs (2k, 2k + 1).

    Returns:
        q, k, v, each (B, L, H, D).
    """
    q, k, v = qkv.unbind(2)
    return _rotate(_rms_norm(q, query_scale), table), _rotate(_rms_norm(k, key_scale), table), v
