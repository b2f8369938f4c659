"""diffusers' names of the FLUX.2 autoencoder (``AutoencoderKLFlux2``), which are those of its other autoencoders."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

#: A tensor that every autoencoder of diffusers has.
LANDMARK = "encoder.down_blocks.0.resnets.0.conv1.weight"

_LEVEL = re.compile(r"(encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_INSIDE = (
    ("conv_shortcut.", "nin_shortcut."),
    ("group_norm.", "norm."),
    ("to_q.", "q."),
    ("to_k.", "k."),
    ("to_v.", "v."),
    ("to_out.0.", "proj_out."),
)


def from_diffusers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names of the original checkpoint; what is not known keeps its name."""
    levels = {int(found[2]) for name in tensors if (found := _LEVEL.match(name)) and found[1] == "decoder"}
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = _own_name(name, max(levels, default=0))
        # The projections of attention are matrices there and 1x1 convolutions here.
        matrix = ".attn_1." in own and tensor.ndim == 2
        renamed[own] = tensor[:, :, None, None] if matrix else tensor
    return renamed


def _own_name(name: str, last_level: int) -> str:
    if found := _LEVEL.match(name):
        half, number, kind, block, rest = found.groups()
        # A decoder's levels are counted from the latent there and from the picture here.
        level = f"down.{number}" if half == "encoder" else f"up.{last_level - int(number)}"
        inside = f"block.{block}" if kind == "resnets" else kind.removesuffix("rs")
        return f"{half}.{level}.{inside}.{_own_layer(rest)}"
    if found := _MIDDLE.match(name):
        half, kind, block, rest = found.groups()
        inside = "attn_1" if kind == "attentions" else f"block_{int(block) + 1}"
        return f"{half}.mid.{inside}.{_own_layer(rest)}"
    return name.replace("coder.conv_norm_out.", "coder.norm_out.")


def _own_layer(rest: str) -> str:
    for theirs, ours in _INSIDE:
        if rest.startswith(theirs):
            return ours + rest.removeprefix(theirs)
    return rest
