"""comfy-kitchen, the kernels that ComfyUI brings along, as a peer: optional, and looked for when it is asked for."""

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from .timing import phrase


def library() -> Any:
    """The package.

    Raises:
        ImportError: it is not installed or does not fit this PyTorch.
    """
    try:
        return importlib.import_module("comfy_kitchen")
    except Exception as error:  # a foreign build raises what it likes
        raise ImportError(f"comfy-kitchen cannot be used ({phrase(error)})") from error


def adaln(x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> list[Tensor]:
    """Its adaLN; ``gate`` belongs to another step. Vectors broadcast against the tokens (B, L, C)."""
    return [library().adaln(x, scale, shift)]


def gated_residual_adaln(x: Tensor, y: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> list[Tensor]:
    """Its adaLN, after the residual as one operation of PyTorch's."""
    x = torch.addcmul(x, gate, y)
    return [x, library().adaln(x, scale, shift)]


def rms_rope(q: Tensor, k: Tensor, matrices: Tensor, q_scale: Tensor, k_scale: Tensor) -> tuple[Tensor, Tensor]:
    """q, k (B, H, L, D) and rotations (L, D / 2, 2, 2)."""
    return library().rms_rope(q, k, matrices[None, None], q_scale, k_scale, 1e-6)


def rms_rope_in_place(
    q: Tensor, k: Tensor, matrices: Tensor, q_scale: Tensor, k_scale: Tensor
) -> tuple[Tensor, Tensor]:
    # Of one packed buffer it takes q and k with tokens before heads: only then it sees that they do not overlap.
    q, k = (x.transpose(1, 2) for x in (q, k))
    q, k = library().rms_rope_(q, k, matrices[None, :, None], q_scale, k_scale, 1e-6)
    return q.transpose(1, 2), k.transpose(1, 2)


def apply_rope(q: Tensor, k: Tensor, matrices: Tensor, q_scale: Tensor, k_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Its rotation, after PyTorch's norm."""
    q, k = (rms_norm(x, x.shape[-1:], scale, 1e-6) for x, scale in ((q, q_scale), (k, k_scale)))
    return library().apply_rope(q, k, matrices[None, None])
