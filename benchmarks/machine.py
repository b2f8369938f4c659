"""What a measurement was made on, and what the machine can do at best."""

import platform
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

import torch

from ..mforce_core.device import device_name
from .timing import compare

#: Sides of the square products that the matrix rate is the best of.
_SIDES = {"cuda": (4096, 8192), "cpu": (1024, 2048)}

#: Bytes of the buffer that is copied: many times the caches.
_COPY_BYTES = {"cuda": 2**30, "cpu": 2**28}

_PACKAGES = ("triton", "xformers", "comfy-kitchen", "numpy")


def describe(device: torch.device) -> dict[str, Any]:
    """Names and versions, the date, and the command that runs."""
    found: dict[str, Any] = {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        **{package: _version(package) for package in _PACKAGES},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["mforce", *sys.argv[1:]]),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["cuda"] = torch.version.cuda or torch.version.hip
        found["driver"] = _driver()
        found["capability"] = f"{properties.major}.{properties.minor}"
        found["memory_bytes"] = properties.total_memory
        found["multiprocessors"] = properties.multi_processor_count
    return found


def ceilings(device: torch.device, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """``copy_bytes_per_second``, bytes read and written, and ``matmul_operations_per_second``, multiplications and
    additions, of random numbers; medians. What other measurements are held against.
    """
    kind = "cuda" if device.type == "cuda" else "cpu"
    source = torch.empty(_COPY_BYTES[kind], dtype=torch.uint8, device=device).random_(256)
    target = torch.empty_like(source)
    runs: dict[str, Any] = {"copy": lambda: target.copy_(source)}
    for side in _SIDES[kind]:
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        runs[str(side)] = lambda a=a, b=b: a @ b
    median = {row["name"]: row["seconds"]["median"] for row in compare(runs, device, repeats, queued=True)}
    return {
        "copy_bytes": _COPY_BYTES[kind],
        "copy_bytes_per_second": 2 * _COPY_BYTES[kind] / median["copy"],
        "matmul_sides": list(_SIDES[kind]),
        "matmul_operations_per_second": max(2 * side**3 / median[str(side)] for side in _SIDES[kind]),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    """The NVIDIA driver's version, which PyTorch does not know."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    run = subprocess.run(query, capture_output=True, text=True, check=False)
    return run.stdout.split("\n")[0].strip() or None
