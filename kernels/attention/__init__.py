"""Attention over all tokens of all streams, behind one function with several back ends.

``attention`` is what the model calls. Which back end runs is asked for by argument, by :class:`use_attention`, or by
the environment variable ``MFORCE_ATTENTION``; otherwise the host's function where it has one, and where it has not,
what was measured to be fastest on this GPU at such a shape, or a fixed rule on a CPU.
"""

from .choice import attention_report
from .dispatch import attention
from .scope import ENVIRONMENT_VARIABLE, use_attention

__all__ = ["ENVIRONMENT_VARIABLE", "attention", "attention_report", "use_attention"]
