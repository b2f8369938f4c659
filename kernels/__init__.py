"""The steps of a block outside its matrix products, one a module: plain PyTorch, and Triton where it can run.

This layer knows tensors only: no model, no checkpoint, no ComfyUI. The transformer calls these functions and
nothing else between its Linear layers. :mod:`.dispatch` says which back end runs; it never fails for want of one.
"""

from .adaln import Modulation, Segment, adaln, gated_residual, gated_residual_adaln
from .attention import attention
from .dispatch import kernel_report, may_overwrite
from .rope import PackedHeads, qk_norm_rope, rope_table
from .swiglu import concat_swiglu, swiglu

__all__ = [
    "Modulation",
    "PackedHeads",
    "Segment",
    "adaln",
    "attention",
    "concat_swiglu",
    "gated_residual",
    "gated_residual_adaln",
    "kernel_report",
    "may_overwrite",
    "qk_norm_rope",
    "rope_table",
    "swiglu",
]
