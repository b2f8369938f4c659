"""Shared by the kernels' tests: where Triton can run, and proof that it did.

Imported before the kernels: without a GPU they run in Triton's interpreter, unless ``TRITON_INTERPRET=0`` says no, and
then tests of Triton are skipped with the reason.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

GPU = torch.cuda.is_available()
if not GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported

from mforce.kernels import kitchen, launches, triton  # noqa: E402

DEVICE = torch.device("cuda", 0) if GPU else torch.device("cpu")
TRITON_PROBLEM = triton.missing(DEVICE)
needs_triton = pytest.mark.skipif(TRITON_PROBLEM is not None, reason=f"Triton cannot run here: {TRITON_PROBLEM}")

KITCHEN_PROBLEM = kitchen.missing(DEVICE)
needs_kitchen = pytest.mark.skipif(KITCHEN_PROBLEM is not None, reason=f"{KITCHEN_PROBLEM}")


#: Operation -> the kernel that its Triton back end launches.
KERNELS = {
    "adaln": "adaln_forward",
    "gated_residual": "adaln_forward",
    "gated_residual_adaln": "adaln_forward",
    "qk_norm_rope": "qk_norm_rope_forward",
    "swiglu": "swiglu_forward",
    "attention": "attention_forward",
    "attention_backward": "attention_backward_dq",
}


def kernels_launched() -> Counter[str]:
    """How often each Triton kernel was launched in this process so far."""
    if TRITON_PROBLEM is not None:
        return Counter()
    from mforce.kernels.triton import launching

    return Counter(launching.launches)


@contextmanager
def runs(back_end: str, *ops: str) -> Iterator[None]:
    """Fails unless every one of ``ops`` ran on ``back_end`` inside the block, and none of them on another.

    Of Triton, its kernels must have been launched too: the registry counts calls of a back end, whatever that does.
    """
    before, kernels_before = launches(), kernels_launched()
    yield
    ran = launches() - before
    missed = [op for op in ops if not ran[op, back_end]]
    assert not missed, f"{missed} did not run on {back_end}, but {dict(ran)}"
    strangers = {(op, name): times for (op, name), times in ran.items() if op in ops and name != back_end}
    assert not strangers, f"other back ends ran: {strangers}"
    if back_end == "triton":
        launched = kernels_launched() - kernels_before
        idle = [KERNELS[op] for op in ops if not launched[KERNELS[op]]]
        assert not idle, f"{idle} were not launched, but {dict(launched)}"
