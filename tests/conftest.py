"""What tests share: a clean record of the kernels that ran, and how several workers share the tests.

``python -m pytest -n 2 --dist loadgroup`` runs them on two workers (pytest-xdist).
"""

import os
import sys

import pytest

#: Workers share the processors: PyTorch reads this when it is imported, here and in what tests start.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _WORKERS)))

#: Fixtures that start one ComfyUI for all files.
_SERVERS = ("server", "frontend_server")
#: Two clusters on one machine would take each other's ports.
_RAY_FILES = ("test_cli_many.py", "test_data_encode.py", "test_depth_evaluation.py")


@pytest.hookimpl(tryfirst=True)  # before xdist looks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A file stays on one worker, since its tests share what is expensive; so do all files with one server."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    groups = {item.path: "ray" if item.path.name in _RAY_FILES else item.path.stem for item in items}
    for item in items:
        used = getattr(item, "fixturenames", ())
        groups[item.path] = next((name for name in _SERVERS if name in used), groups[item.path])
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item.path]))


@pytest.fixture(autouse=True)
def own_record_of_kernels() -> None:
    """Compiled code and measured choices belong to the process; here every test stands for a process of its own."""
    choice = sys.modules.get("mforce.kernels.choice")
    if choice is not None:
        choice.compiled.clear()
        choice.choices.clear()
