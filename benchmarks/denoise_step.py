"""One denoise step against its op-by-op formulation: ``python -m mforce.benchmarks.denoise_step [--out FILE.json]``.

Both run the same weights in one process and take turns, so that whatever else the machine does slows both; reported are
the median of the paired ratios and both medians. Peak memory is measured of each in a process of its own. The default
is a 231 M-parameter model on 512 text, 1024 image and 1024 depth tokens in bfloat16.
"""

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..mforce_core.config import Architecture
from ..mforce_core.transformer import ModalityForcingTransformer
from . import op_by_op

SIZES = Architecture(
    context_in_dim=1536, hidden_size=1024, num_heads=8, depth_double=2, depth_single=6, depth_decoder_num_layers=2
)
TEXT, GRID = 512, (32, 32)

Step = Callable[[], tuple[Tensor, Tensor | None]]


def steps(device: str) -> dict[str, Step]:
    """The two formulations on the same random weights and inputs."""
    torch.manual_seed(0)
    model = ModalityForcingTransformer(SIZES, device=device, dtype=torch.bfloat16).requires_grad_(False)
    tokens = GRID[0] * GRID[1]
    shapes = ((1, tokens, SIZES.in_channels), (1, tokens, SIZES.depth_channels), (1, TEXT, SIZES.context_in_dim))
    rgb, depth, text = (torch.randn(shape, device=device) for shape in shapes)
    t_rgb, t_depth = torch.tensor([[0.7], [0.4]], device=device)
    return {
        "mforce": lambda: model(rgb, depth, text, t_rgb, t_depth, GRID),
        "op_by_op": lambda: op_by_op.forward(model, rgb, depth, text, t_rgb, t_depth, GRID),
    }


@torch.inference_mode()
def seconds(step: Step, device: str) -> float:
    started = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


def interleaved(device: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat by formulation, in turns; a first turn warms up."""
    both = steps(device)
    taken: dict[str, list[float]] = {name: [] for name in both}
    for repeat in range(repeats + 1):
        for name, step in both.items():
            elapsed = seconds(step, device)
            if repeat:
                taken[name].append(elapsed)
    return taken


def peak_bytes(name: str, device: str) -> int:
    """Peak memory of three steps beyond the model's and the inputs', in this process."""
    step = steps(device)[name]
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _high_water()
    for _ in range(3):
        seconds(step, device)
    return (torch.cuda.max_memory_allocated() if device.startswith("cuda") else _high_water()) - before


def _high_water() -> int:
    """Linux only; ``ru_maxrss`` would count the parent process too."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def _peak_elsewhere(name: str, device: str) -> int:
    command = [sys.executable, "-m", __spec__.name, "--device", device, "--peak", name]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", choices=("mforce", "op_by_op"), help="print the peak memory of one, nothing else")
    args = parser.parse_args()
    if args.peak:
        print(peak_bytes(args.peak, args.device))
        return
    taken = interleaved(args.device, args.repeats)
    pairs = zip(taken["op_by_op"], taken["mforce"], strict=True)
    result = {
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "seconds": {name: statistics.median(values) for name, values in taken.items()},
        "ratio": statistics.median(theirs / ours for theirs, ours in pairs),
        "repeats": args.repeats,
        "peak_bytes_beyond_the_model": {name: _peak_elsewhere(name, args.device) for name in taken},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
