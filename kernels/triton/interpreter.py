"""Whether Triton interprets its kernels; imports without Triton."""

import os


def interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter, which takes CPU tensors (``TRITON_INTERPRET=1``)."""
    return os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "True")
