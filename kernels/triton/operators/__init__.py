"""The Triton kernels as back ends run them: launched directly, or as operators of PyTorch where something watches.

Every launcher is called from here and counted.
"""

from .adaln import run_adaln as adaln
from .adaln import run_gated_residual as gated_residual
from .adaln import run_gated_residual_adaln as gated_residual_adaln
from .attention import run_attention as attention
from .rope import run_qk_norm_rope as qk_norm_rope
from .swiglu import run_swiglu as swiglu

__all__ = ["adaln", "attention", "gated_residual", "gated_residual_adaln", "qk_norm_rope", "swiglu"]
