"""Peak memory of one denoise step; on a CPU in a process of its own: ``python -m mforce.benchmarks.peak_memory``."""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from .formulations import steps
from .subjects import subject

#: Runs whose highest point counts.
_RUNS = 3


def on_gpu(run: Callable[[], object], device: torch.device) -> int:
    """Bytes that PyTorch had allocated at most, the model and everything else on the device included."""
    run()  # the first one may also try back ends and compile
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(_RUNS):
        run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def elsewhere(formulation: str, architecture: str, dtype: torch.dtype) -> int:
    """Bytes of resident memory that a CPU process takes at most beyond the model's and the inputs'."""
    command = [sys.executable, "-m", __name__, formulation, architecture, str(dtype).removeprefix("torch.")]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def high_water() -> int:
    """Linux only; ``ru_maxrss`` would count the parent process too."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError("this system does not say how much memory a process took at most")
    return 1024 * int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formulation")
    parser.add_argument("architecture")
    parser.add_argument("dtype")
    args = parser.parse_args()
    measured, cpu = subject(args.architecture), torch.device("cpu")
    run = steps(measured, measured.model(cpu, getattr(torch, args.dtype)), cpu)[args.formulation]
    before = high_water()
    for _ in range(_RUNS):
        run()
    print(high_water() - before)


if __name__ == "__main__":
    main()
