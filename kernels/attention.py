"""Attention over all tokens of all streams."""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention without a mask, scale D**-0.5.

    Args:
        q, k, v: (B, L, H, D).

    Returns:
        (B, L, H * D), heads concatenated.
    """
    out = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2).flatten(2)
