"""What the kernels do in a block, each time by several hands: ours, op by op, and comfy-kitchen's where it has it.

All hands of a case take the same inputs and give the same outputs, which is checked before anything is timed. Bytes are
those that the work needs, each input read once and each output written once, whatever a hand moves beyond them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels import (
    Modulation,
    PackedHeads,
    Segment,
    adaln,
    gated_residual,
    gated_residual_adaln,
    qk_norm_rope,
    swiglu,
)
from . import kitchen, op_by_op
from .subjects import Subject

Hand = Callable[..., Sequence[Tensor]]


class Case(NamedTuple):
    """Work of one kernel.

    ``draw`` makes the inputs, the same values each time, since a hand may write over its own; the first
    ``differentiable`` of them have gradients. ``bytes`` are the forward pass's; without ``backward_bytes`` there is no
    backward pass to measure.
    """

    name: str
    bytes: int
    backward_bytes: int | None
    draw: Callable[[], tuple[Tensor, ...]]
    differentiable: int
    hands: dict[str, Hand]


def cases(subject: Subject, device: torch.device, dtype: torch.dtype) -> list[Case]:
    """The steps between matrix products of one image, in the sizes of ``subject``'s blocks."""
    sizes, image = subject.architecture, subject.image
    part = subject.tokens * sizes.hidden_size * dtype.itemsize
    random = partial(_random, device=device, dtype=dtype)
    found = []
    for lengths, kind in (([subject.tokens], ""), ([subject.text + image, image], ", two modulations")):
        for name, (parts, backward_parts, streams, hands) in _MODULATED.items():
            found.append(
                Case(
                    name + kind,
                    parts * part,
                    None if kind else backward_parts * part,
                    partial(_tokens_and_vectors, random, lengths, sizes.hidden_size, streams),
                    streams + 3,
                    {hand: partial(run, lengths) if hand == "mforce" else run for hand, run in hands.items()},
                )
            )
    matrices = op_by_op.rotation_matrices(sizes, subject.text, subject.grid, device)
    table = torch.stack((matrices[..., 0, 0], matrices[..., 1, 0]))
    heads = partial(_packed_heads, random, sizes.num_heads, sizes.head_dim, (table, matrices))
    found.append(Case("qk_norm_rope", 4 * part, 8 * part, partial(heads, [subject.tokens]), 3, _ROPE))
    three = [subject.text, image, image]
    found.append(Case("qk_norm_rope, three streams", 6 * part, None, partial(heads, three), 0, _JOINT_ROPE))
    mlp = subject.tokens * sizes.mlp_dim * dtype.itemsize
    draw = partial(_packed_mlp, random, subject.tokens, sizes.hidden_size, sizes.mlp_dim)
    found.append(Case("swiglu", 3 * mlp, 5 * mlp, draw, 1, _SWIGLU))
    return found


def _random(seed: int, *shape: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device, dtype=dtype)


def _tokens_and_vectors(
    random: Callable[..., Tensor], lengths: list[int], channels: int, streams: int
) -> tuple[Tensor, ...]:
    """x, perhaps y, shift, scale, gate. The last three are (1, 1, C), or with several segments one row per token."""
    tokens = [random(seed, 1, sum(lengths), channels) for seed in range(streams)]
    vectors = [
        [random(10 + 3 * segment + kind, 1, 1, channels) for segment in range(len(lengths))] for kind in range(3)
    ]
    if len(lengths) == 1:
        return *tokens, *(kind[0] for kind in vectors)
    return *tokens, *(
        torch.cat([row.expand(-1, length, -1) for row, length in zip(kind, lengths, strict=True)], dim=1)
        for kind in vectors
    )


def _segments(lengths: list[int], shift: Tensor, scale: Tensor, gate: Tensor) -> list[Segment]:
    """The vectors of each segment where its first token has them."""
    starts = [0, *accumulate(lengths)]
    return [
        Segment(length, Modulation(shift[:, start], scale[:, start], gate[:, start]))
        for length, start in zip(lengths, starts, strict=False)
    ]


def _adaln(lengths: list[int], x: Tensor, *vectors: Tensor) -> list[Tensor]:
    return [adaln(x, _segments(lengths, *vectors))]


def _gated_residual(lengths: list[int], x: Tensor, y: Tensor, *vectors: Tensor) -> list[Tensor]:
    return [gated_residual(x, y, _segments(lengths, *vectors), inplace=not torch.is_grad_enabled())]


def _both(lengths: list[int], x: Tensor, y: Tensor, *vectors: Tensor) -> Sequence[Tensor]:
    segments = _segments(lengths, *vectors)
    following = [modulation for _, modulation in segments]
    return gated_residual_adaln(x, y, segments, following, inplace=not torch.is_grad_enabled())


def _op_by_op_adaln(x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> list[Tensor]:
    return [op_by_op.modulate(x, shift, scale)]


def _op_by_op_gated_residual(x: Tensor, y: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> list[Tensor]:
    return [x + gate * y]


def _op_by_op_both(x: Tensor, y: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> list[Tensor]:
    x = x + gate * y
    return [x, op_by_op.modulate(x, shift, scale)]


#: Name -> parts (B, L, C) moved forward and backward, streams of tokens in, hands.
_MODULATED: dict[str, tuple[int, int, int, dict[str, Hand]]] = {
    "adaln": (2, 3, 1, {"mforce": _adaln, "op_by_op": _op_by_op_adaln, "comfy_kitchen": kitchen.adaln}),
    "gated_residual": (3, 3, 2, {"mforce": _gated_residual, "op_by_op": _op_by_op_gated_residual}),
    "gated_residual_adaln": (
        4,
        6,
        2,
        {"mforce": _both, "op_by_op": _op_by_op_both, "comfy_kitchen": kitchen.gated_residual_adaln},
    ),
}


def _packed_heads(
    random: Callable[..., Tensor], heads: int, features: int, rotations: tuple[Tensor, Tensor], lengths: list[int]
) -> tuple[Tensor, ...]:
    """Each stream's (B, L, 3, H, D) and the scales of its norms, (D,), then the rotations twice: as cosines and sines,
    and as matrices."""
    streams = []
    for seed, length in enumerate(lengths):
        scales = (random(seed + kind, features) * 0.1 + 1 for kind in (10, 20))
        streams += [random(seed, 1, length, 3, heads, features), *scales]
    return *streams, *rotations


def _rope(*inputs: Tensor) -> list[Tensor]:
    """q and k of all streams, (B, H, L, D); of several streams v too, since it moves as well."""
    *streams, table, _ = inputs
    packed = [PackedHeads(*streams[i : i + 3]) for i in range(0, len(streams), 3)]
    joint = qk_norm_rope(packed, table, inplace=not torch.is_grad_enabled())
    return [x.transpose(1, 2) for x in joint[: 2 if len(packed) == 1 else 3]]


def _by_stream(rotate: Callable[..., tuple[Tensor, Tensor]], *inputs: Tensor) -> list[Tensor]:
    """A hand that rotates (B, H, L, D) by matrices, taking the streams one by one."""
    *streams, _, matrices = inputs
    parts, start = [], 0
    for i in range(0, len(streams), 3):
        q, k, v = streams[i].permute(2, 0, 3, 1, 4)
        end = start + q.shape[2]
        parts.append((*rotate(q, k, matrices[start:end], *streams[i + 1 : i + 3]), v))
        start = end
    if len(parts) == 1:
        return [*parts[0][:2]]
    return [torch.cat(kind, dim=2) for kind in zip(*parts, strict=True)]


def _op_by_op_rotate(q: Tensor, k: Tensor, matrices: Tensor, q_scale: Tensor, k_scale: Tensor) -> tuple[Tensor, Tensor]:
    q, k = op_by_op.rms_norm(q, q_scale), op_by_op.rms_norm(k, k_scale)
    return op_by_op.rotate(q, matrices), op_by_op.rotate(k, matrices)


_JOINT_ROPE: dict[str, Hand] = {
    "mforce": _rope,
    "op_by_op": partial(_by_stream, _op_by_op_rotate),
    "comfy_kitchen rms_rope": partial(_by_stream, kitchen.rms_rope),
    "comfy_kitchen apply_rope": partial(_by_stream, kitchen.apply_rope),
}
_ROPE: dict[str, Hand] = {**_JOINT_ROPE, "comfy_kitchen rms_rope_": partial(_by_stream, kitchen.rms_rope_in_place)}


def _packed_mlp(random: Callable[..., Tensor], tokens: int, channels: int, mlp: int) -> tuple[Tensor, Tensor, Tensor]:
    """What a single block's first Linear wrote, its attention, and the buffer ``[attention | mlp]``."""
    packed = random(0, 1, tokens, 3 * channels + 2 * mlp)
    return packed, random(1, 1, tokens, channels), torch.empty_like(packed[..., : channels + mlp])


def _swiglu(packed: Tensor, attended: Tensor, joined: Tensor) -> list[Tensor]:
    """Attention is where it belongs already, and the MLP goes beside it."""
    channels = attended.shape[2]
    mlp = packed[..., 3 * channels :]
    return [swiglu(mlp) if packed.requires_grad else swiglu(mlp, out=joined[..., channels:])]


def _op_by_op_swiglu(packed: Tensor, attended: Tensor, joined: Tensor) -> list[Tensor]:
    channels = attended.shape[2]
    mlp = op_by_op.swiglu(packed[..., 3 * channels :])
    return [mlp if packed.requires_grad else torch.cat((attended, mlp), dim=-1)[..., channels:]]


_SWIGLU: dict[str, Hand] = {"mforce": _swiglu, "op_by_op": _op_by_op_swiglu}
