"""ComfyUI's attention for our transformer, if the user asked ComfyUI for a certain one.

Relies on: ``comfy.ldm.modules.attention.optimized_attention`` and its signature, the start flags in ``comfy.cli_args``,
and the ``optimized_attention_override`` entry of ``transformer_options``.
"""

from __future__ import annotations

from typing import Any

import comfy.cli_args
import comfy.ldm.modules.attention
from torch import Tensor

from ...kernels import HostAttention

#: Flags that choose an attention; xformers alone is also taken where it is merely installed, so it is none of them.
_FLAGS = (
    "use_sage_attention",
    "use_flash_attention",
    "use_ck_attention",
    "use_pytorch_cross_attention",
    "use_split_cross_attention",
    "use_quad_cross_attention",
)


def host_attention(transformer_options: dict[str, Any]) -> HostAttention | None:
    """ComfyUI's attention where a start flag or a patch of the model asks for one, else None: the choice is ours."""
    patched = "optimized_attention_override" in transformer_options
    if not patched and not any(getattr(comfy.cli_args.args, flag, False) for flag in _FLAGS):
        return None

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Looked up at every call, since other packs replace it.
        return comfy.ldm.modules.attention.optimized_attention(
            q, k, v, q.shape[1], skip_reshape=True, transformer_options=transformer_options
        )

    return attend
