"""What tests share: a clean record of the kernels that ran."""

import sys

import pytest


@pytest.fixture(autouse=True)
def own_record_of_kernels() -> None:
    """Compiled code and measured choices belong to the process; here every test stands for a process of its own."""
    choice = sys.modules.get("mforce.kernels.choice")
    if choice is not None:
        choice.compiled.clear()
        choice.choices.clear()
