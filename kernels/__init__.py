"""The steps of a block outside its matrix products: one file per operation, and back ends in one registry.

The files :mod:`.adaln`, :mod:`.rope`, :mod:`.swiglu` and :mod:`.attention` hold each operation's contract and its
reference in plain PyTorch. Back ends are :mod:`.triton`, :mod:`.kitchen`, :mod:`.sdpa`, :mod:`.xformers` and
:mod:`.host`; a new one is one file with ``BACK_ENDS`` and its name in the loop below. This layer knows tensors
only: no model, no checkpoint, no ComfyUI.

Which back end runs is asked for by ``MFORCE_KERNELS`` or ``with back_end("triton,attention=sdpa")`` (:mod:`.spec`)
and otherwise chosen automatically (:mod:`.choice`). What is asked for by name runs or raises
:class:`BackEndUnavailable`. ``what_ran()`` is a record for a result's metadata, and ``with pinned(record)`` runs the
same kernels again::

    before = launches()
    ...                                   # sample
    metadata["kernels"] = what_ran(since=before)
    with pinned(metadata["kernels"]):     # later, to reproduce it
        ...
"""

from . import host, kitchen, sdpa, triton, xformers
from .adaln import Modulation, Segment, adaln, gated_residual, gated_residual_adaln
from .attention import attention
from .registry import BackEndUnavailable, candidate_names, launches, register
from .report import kernel_report, pinned, what_ran
from .rope import PackedHeads, qk_norm_rope, rope_table
from .spec import HostAttention, back_end, current_request, use_attention
from .swiglu import concat_swiglu, swiglu
from .tracing import may_overwrite

for _module in (triton, sdpa, xformers, kitchen, host):
    register(*_module.BACK_ENDS)

__all__ = [
    "BackEndUnavailable",
    "HostAttention",
    "Modulation",
    "PackedHeads",
    "Segment",
    "adaln",
    "attention",
    "back_end",
    "candidate_names",
    "concat_swiglu",
    "current_request",
    "gated_residual",
    "gated_residual_adaln",
    "kernel_report",
    "launches",
    "may_overwrite",
    "pinned",
    "qk_norm_rope",
    "rope_table",
    "swiglu",
    "use_attention",
    "what_ran",
]
