"""comfy-kitchen, the kernels that every ComfyUI brings, for the operations that it has; without gradients.

It chooses among CUDA, Triton and plain PyTorch by itself. It has no gated residual: that part is PyTorch's.
"""

import functools
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .adaln import LAYER_NORM_EPS, reference_gated_residual
from .registry import FLOATS, BackEnd, Constraints, first_line
from .rope import RMS_NORM_EPS, PackedHeads, joint_buffer
from .tracing import constant_when_traced

_CONSTRAINTS = Constraints(dtypes=FLOATS, devices=frozenset({"cuda", "cpu"}), gradient=False, uniform=True)


@constant_when_traced
def _kitchen() -> ModuleType:
    import comfy_kitchen

    return comfy_kitchen


@functools.cache
def missing(device: torch.device) -> str | None:
    try:
        _kitchen()
    except Exception as error:  # built for another PyTorch it raises what it likes
        return f"comfy-kitchen cannot be imported ({type(error).__name__}: {first_line(error)})"
    return None


def _adaln(x: Tensor, lengths: Sequence[int], shifts: Sequence[Tensor], scales: Sequence[Tensor]) -> Tensor:
    parts = [
        _kitchen().adaln(part, scale[:, None], shift[:, None], LAYER_NORM_EPS)
        for part, shift, scale in zip(x.split(lengths, dim=1), shifts, scales, strict=True)
        if part.numel()
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _gated_residual_adaln(
    x: Tensor,
    y: Tensor,
    lengths: list[int],
    gates: list[Tensor],
    shifts: list[Tensor],
    scales: list[Tensor],
    inplace: bool,
) -> tuple[Tensor, Tensor]:
    x = reference_gated_residual(x, y, lengths, gates, inplace)
    return x, _adaln(x, lengths, shifts, scales)


#: Rotation matrices of a table, made once for all blocks of a model that keeps its table.
_matrices = WeakTensorKeyDictionary()


def _rotations(table: Tensor) -> Tensor:
    """(2, L, D / 2) cosines and sines -> (L, D / 2, 2, 2) matrices that turn a pair."""
    matrices = None if torch.compiler.is_compiling() else _matrices.get(table)
    if matrices is None:
        cos, sin = table
        matrices = torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2))
        if not torch.compiler.is_compiling():
            _matrices[table] = matrices
    return matrices


def _qk_norm_rope(streams: Sequence[PackedHeads], table: Tensor, inplace: bool) -> tuple[Tensor, Tensor, Tensor]:
    rotations = _rotations(table)[None, :, None]  # (1, L, 1, D / 2, 2, 2) against (B, L, H, D)
    qkv, start = joint_buffer(streams, inplace), 0
    for packed, *scales in streams:
        part = slice(start, start + packed.shape[1])
        start = part.stop
        if not packed.shape[1]:
            continue
        target = qkv[:, part].unbind(2)
        # Detached: its operation in place refuses a scale that could be trained, whether or not autograd records.
        arguments = rotations[:, part], *(scale.detach().to(packed.dtype) for scale in scales), RMS_NORM_EPS
        if packed is qkv:
            _kitchen().rms_rope_(*target[:2], *arguments)
        else:
            *queries_keys, v = packed.unbind(2)
            for into, values in zip(target, (*_kitchen().rms_rope(*queries_keys, *arguments), v), strict=True):
                into.copy_(values)
    q, k, v = qkv.unbind(2)
    return q, k, v


BACK_ENDS = tuple(
    BackEnd("kitchen", op, run, _CONSTRAINTS, missing, candidate=True)
    for op, run in (
        ("adaln", _adaln),
        ("gated_residual_adaln", _gated_residual_adaln),
        ("qk_norm_rope", _qk_norm_rope),
    )
)
