"""The blocks of the transformer: double-stream, single-stream, and the last layer of each output.

B batch, T text tokens, N image tokens and as many of depth, C hidden size, H heads of D features, M = mlp_ratio * C;
K heads of keys and values, H unless the attention is grouped-query (Ainslie et al., arXiv 2305.13245).
"""

from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from ...kernels import (
    Modulation,
    PackedHeads,
    Segment,
    adaln,
    attention,
    concat_swiglu,
    gated_residual,
    gated_residual_adaln,
    may_overwrite,
    qk_norm_rope,
    swiglu,
)
from .config import Architecture
from .modulation import BlockModulation


class HeadScale(nn.Module):
    """The learned scale of an RMSNorm over one head, (D,)."""

    def __init__(self, head_dim: int, device: Any, dtype: Any) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(head_dim, device=device, dtype=dtype))


class QKNorm(nn.Module):
    """Scales of the norms on queries and keys; :func:`..kernels.qk_norm_rope` applies them."""

    def __init__(self, head_dim: int, device: Any, dtype: Any) -> None:
        super().__init__()
        self.query_norm = HeadScale(head_dim, device, dtype)
        self.key_norm = HeadScale(head_dim, device, dtype)

    def pack(self, qkv: Tensor, heads: int, kv_heads: int) -> PackedHeads:
        """(B, L, (H + 2 K) D) as a Linear wrote it -> (B, L, 3, H, D) with its scales; keys and values repeat."""
        if kv_heads == heads:
            qkv = rearrange(qkv, "b l (qkv h d) -> b l qkv h d", qkv=3, h=heads)
        else:
            qkv = rearrange(qkv, "b l (h d) -> b l h d", h=heads + 2 * kv_heads)
            q, k, v = qkv.split([heads, kv_heads, kv_heads], dim=2)
            k, v = (repeat(part, "b l k d -> b l (k g) d", g=heads // kv_heads) for part in (k, v))
            qkv = torch.stack([q, k, v], dim=2)
        return PackedHeads(qkv, self.query_norm.scale, self.key_norm.scale)


class StreamAttention(nn.Module):
    """One stream's share of the joint attention: its q, k, v before it, its projection after it."""

    def __init__(self, config: Architecture, *, operations: Any, device: Any, dtype: Any) -> None:
        super().__init__()
        factory = {"bias": False, "device": device, "dtype": dtype}
        self.heads, self.kv_heads = config.num_heads, config.kv_heads
        self.qkv = operations.Linear(config.hidden_size, config.qkv_dim, **factory)
        self.norm = QKNorm(config.head_dim, device, dtype)
        self.proj = operations.Linear(config.hidden_size, config.hidden_size, **factory)

    def pack(self, x: Tensor, modulation: Modulation) -> PackedHeads:
        """(B, L, C) tokens -> (B, L, 3, H, D) of their modulated norm."""
        return self.norm.pack(self.qkv(adaln(x, [Segment(x.shape[1], modulation)])), self.heads, self.kv_heads)


class SwiGLU(nn.Module):
    """(B, L, 2 M) -> (B, L, M)."""

    def forward(self, x: Tensor) -> Tensor:
        return swiglu(x)


class GatedMLP(nn.Sequential):
    """Linear, SwiGLU, Linear; indices 0 and 2 carry the checkpoint's weights."""

    def __init__(self, config: Architecture, *, operations: Any, device: Any, dtype: Any) -> None:
        factory = {"bias": False, "device": device, "dtype": dtype}
        super().__init__(
            operations.Linear(config.hidden_size, 2 * config.mlp_dim, **factory),
            SwiGLU(),
            operations.Linear(config.mlp_dim, config.hidden_size, **factory),
        )


class DoubleStreamBlock(nn.Module):
    """Each stream has its own weights; attention is joint over [txt, img, depth]."""

    def __init__(self, config: Architecture, **factory: Any) -> None:
        super().__init__()
        self.img_attn = StreamAttention(config, **factory)
        self.img_mlp = GatedMLP(config, **factory)
        self.txt_attn = StreamAttention(config, **factory)
        self.txt_mlp = GatedMLP(config, **factory)
        if config.has_depth:
            self.depth_attn = StreamAttention(config, **factory)
            self.depth_mlp = GatedMLP(config, **factory)

    def forward(
        self,
        txt: Tensor,
        img: Tensor,
        depth: Tensor | None,
        txt_modulation: BlockModulation,
        img_modulation: BlockModulation,
        depth_modulation: BlockModulation | None,
        table: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The three streams after the block; the tensors given may be overwritten.

        Args:
            txt: (B, T, C).
            img: (B, N, C).
            depth: (B, N, C), or None.
            table: rotation of the sequence [txt, img, depth], (2, T + 2 N, D / 2).
        """
        heads = [
            self.txt_attn.pack(txt, txt_modulation.attention),
            self.img_attn.pack(img, img_modulation.attention),
        ]
        if depth is not None and depth_modulation is not None:
            heads.append(self.depth_attn.pack(depth, depth_modulation.attention))
        q, k, v = qk_norm_rope(heads, table)  # (B, T + 2 N, H, D)
        del heads
        attended = attention(q, k, v)  # (B, T + 2 N, C)
        del q, k, v

        t, n = txt.shape[1], img.shape[1]
        txt = _close_residuals(txt, attended[:, :t], self.txt_attn.proj, self.txt_mlp, txt_modulation)
        img = _close_residuals(img, attended[:, t : t + n], self.img_attn.proj, self.img_mlp, img_modulation)
        if depth is not None and depth_modulation is not None:
            depth = _close_residuals(
                depth, attended[:, t + n :], self.depth_attn.proj, self.depth_mlp, depth_modulation
            )
        return txt, img, depth


def _close_residuals(
    x: Tensor, attended: Tensor, proj: nn.Module, mlp: nn.Module, modulation: BlockModulation
) -> Tensor:
    """``x += gate * proj(attended)``, then ``x += gate * mlp(adaln(x))``, all (B, L, C)."""
    inplace, length = may_overwrite(x), x.shape[1]
    x, h = gated_residual_adaln(
        x, proj(attended), [Segment(length, modulation.attention)], [modulation.mlp], inplace=inplace
    )
    return gated_residual(x, mlp(h), [Segment(length, modulation.mlp)], inplace=inplace)


class SingleStreamBlock(nn.Module):
    """Attention and MLP side by side on one sequence, one Linear in and one out."""

    def __init__(self, config: Architecture, *, operations: Any, device: Any, dtype: Any) -> None:
        super().__init__()
        factory = {"bias": False, "device": device, "dtype": dtype}
        self.heads, self.kv_heads = config.num_heads, config.kv_heads
        self.widths = [config.qkv_dim, 2 * config.mlp_dim]
        self.linear1 = operations.Linear(config.hidden_size, sum(self.widths), **factory)
        self.linear2 = operations.Linear(config.hidden_size + config.mlp_dim, config.hidden_size, **factory)
        self.norm = QKNorm(config.head_dim, device, dtype)

    def forward(self, h: Tensor, table: Tensor) -> Tensor:
        """The residual branch before its gate.

        Args:
            h: modulated tokens, (B, L, C).
            table: their rotation, (2, L, D / 2).
        """
        qkv, mlp = self.linear1(h).split(self.widths, dim=-1)  # (B, L, (H + 2 K) D), (B, L, 2 M)
        packed = self.norm.pack(qkv, self.heads, self.kv_heads)
        q, k, v = qk_norm_rope([packed], table, inplace=may_overwrite(h))  # (B, L, H, D)
        return self.linear2(concat_swiglu(attention(q, k, v), mlp))  # (B, L, C + M) -> (B, L, C)


def run_single_blocks(blocks: nn.ModuleList, x: Tensor, segments: list[Segment], table: Tensor) -> Tensor:
    """Single-stream blocks on the tokens x, (B, L, C), which may be overwritten.

    They share one modulation, so a block's residual and the next one's adaLN are one step.
    """
    if not len(blocks):
        return x
    inplace, last = may_overwrite(x), len(blocks) - 1
    following = [segment.modulation for segment in segments]
    h = adaln(x, segments)
    for index, block in enumerate(blocks):
        branch = block(h, table)
        if index < last:
            x, h = gated_residual_adaln(x, branch, segments, following, inplace=inplace)
        else:
            x = gated_residual(x, branch, segments, inplace=inplace)
    return x


class FinalLayer(nn.Module):
    """adaLN (shift first, then scale; no gate), then the projection to the output channels."""

    def __init__(self, size: int, out_channels: int, *, operations: Any, device: Any, dtype: Any) -> None:
        super().__init__()
        factory = {"bias": False, "device": device, "dtype": dtype}
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), operations.Linear(size, 2 * size, **factory))
        self.linear = operations.Linear(size, out_channels, **factory)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """(B, L, C) tokens and what ``adaLN_modulation`` made of the conditioning, (B or 1, 2 C) -> (B, L, out)."""
        shift, scale = vectors.chunk(2, dim=-1)
        return self.linear(adaln(x, [Segment(x.shape[1], Modulation(shift, scale))]))
