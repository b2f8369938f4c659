"""Shared by the kernels' tests: where Triton can run, and proof that it did.

Imported before the kernels: without a GPU they run in Triton's interpreter, unless ``TRITON_INTERPRET=0`` says no, and
then tests of Triton are skipped with the reason.
"""

import os
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


@contextmanager
def runs(back_end: str, *ops: str) -> Iterator[None]:
    """Fails unless every one of ``ops`` ran on ``back_end`` inside the block, and no operation on another."""
    before = launches()
    yield
    ran = launches() - before
    missed = [op for op in ops if not ran[op, back_end]]
    assert not missed, f"{missed} did not run on {back_end}, but {dict(ran)}"
    strangers = {(op, name): times for (op, name), times in ran.items() if op in ops and name != back_end}
    assert not strangers, f"other back ends ran: {strangers}"
