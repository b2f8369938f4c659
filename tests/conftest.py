"""What tests share: a clean record of kernels that ran, a Ray of their own, and the processors among several workers.

``python -m pytest -n 2 --dist loadfile`` runs them on two workers (pytest-xdist). A file stays on one worker, since its
tests share what is expensive.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Workers share the processors: PyTorch reads this when it is imported, here and in what tests start.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _WORKERS)))


@pytest.fixture(autouse=True)
def own_record_of_kernels() -> None:
    """Compiled code and measured choices belong to the process; here every test stands for a process of its own."""
    choice = sys.modules.get("mforce.kernels.choice")
    if choice is not None:
        choice.compiled.clear()
        choice.choices.clear()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoded samples and a text encoder that a tiny model trains on, one folder for the tests of a file."""
    from tiny_training import write_data  # here, since most tests need nothing of training

    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def ray_of_two_processes() -> Iterator[None]:
    """A Ray that ends with the test: what one leaves behind is in the way of the next."""
    ray = pytest.importorskip("ray", reason="Ray is in the test extra on Linux")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
