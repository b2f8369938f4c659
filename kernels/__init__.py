"""The steps of a block outside its matrix products, one a module, each a plain-PyTorch reference.

This layer knows tensors only: no model, no checkpoint, no ComfyUI. The transformer calls these functions and
nothing else between its Linear layers, so a faster implementation replaces a function here and no block changes.
"""

from .adaln import Modulation, Segment, adaln, gated_residual, gated_residual_adaln
from .attention import attention
from .rope import qk_norm_rope, rope_table
from .swiglu import swiglu

__all__ = [
    "Modulation",
    "Segment",
    "adaln",
    "attention",
    "gated_residual",
    "gated_residual_adaln",
    "qk_norm_rope",
    "rope_table",
    "swiglu",
]
