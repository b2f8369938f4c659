"""Peak memory of one denoise step; on a CPU in a process of its own: ``python -m mforce.benchmarks.peak_memory``."""

import argparse
import subprocess
import sys
from collections.abc import Callable

import torch

from .formulations import steps
from .process_memory import status_bytes
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formulation")
    parser.add_argument("architecture")
    parser.add_argument("dtype")
    args = parser.parse_args()
    measured, cpu = subject(args.architecture), torch.device("cpu")
    run = steps(measured, measured.model(cpu, getattr(torch, args.dtype)), cpu)[args.formulation]
    before = status_bytes("VmHWM")
    for _ in range(_RUNS):
        run()
    print(status_bytes("VmHWM") - before)


if __name__ == "__main__":
    main()
