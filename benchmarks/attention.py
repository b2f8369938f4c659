"""Back ends of attention side by side: ``python -m mforce.benchmarks.attention [--device cuda] [--out FILE.json]``.

All that work on the device take turns in one process, forward and backward apart. Reported are medians, the rate of the
operations that the result needs (4 B H L^2 D forward, 10 B H L^2 D backward, whatever a back end does beyond them), and
the speed relative to the fastest of PyTorch's own implementations.
"""

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..kernels import attention
from ..kernels.registry import BACK_ENDS, OPS, Call
from ..kernels.trials import trial
from .timing import in_turns

#: (B, H, L, D): the published model at 512x512 with its text, at 1024x1024, a batch of two as guidance makes it, and
#: a head of 64.
SHAPES = ((1, 32, 2560, 128), (1, 32, 8704, 128), (2, 32, 2560, 128), (1, 24, 2560, 64))
CPU_SHAPES = ((1, 8, 512, 128), (1, 8, 1024, 128))

#: Operations in units of B H L^2 D: two products of two operations each; the backward pass has five.
_OPERATIONS = {"forward": 4, "backward": 10}


def measure_attention(
    device: torch.device, dtype: torch.dtype, shapes: Iterable[tuple[int, int, int, int]], rounds: int = 10
) -> list[dict[str, Any]]:
    """One row for each shape (B, H, L, D), pass and back end.

    Rows have ``batch``, ``heads``, ``length``, ``features``, ``dtype``, ``pass`` (``forward`` or ``backward``),
    ``backend``, median ``seconds``, ``operations_per_second`` and ``speed_over_best_sdpa`` (above 1: faster); a back
    end that does not run has the reason in ``problem`` instead of the last three. JSON takes them as they are.
    """
    return [row for shape in shapes for row in _measure_shape(device, dtype, shape, rounds)]


def _measure_shape(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int, int], rounds: int
) -> list[dict[str, Any]]:
    batch, heads, length, features = shape
    kind = dict(zip(("batch", "heads", "length", "features"), shape, strict=True))
    rows: list[dict[str, Any]] = []
    for step, operations in _OPERATIONS.items():
        call = Call("attention", device, dtype, features, step == "backward", (batch, heads, length, length))
        inputs = OPS["attention"].draw(call)[:3]
        runs, problems = _runs(call, inputs)
        medians = {
            name: statistics.median(times) for name, times in in_turns(runs, device, rounds, queued=True).items()
        }
        best = min((median for name, median in medians.items() if name.startswith("sdpa")), default=None)
        work = operations * batch * heads * length**2 * features
        for name in (*medians, *problems):
            row = {**kind, "dtype": str(dtype).removeprefix("torch."), "pass": step, "backend": name}
            if name in problems:
                row["problem"] = problems[name]
            else:
                row["seconds"] = medians[name]
                row["operations_per_second"] = work / medians[name]
                row["speed_over_best_sdpa"] = None if best is None else best / medians[name]
            rows.append(row)
    return rows


def _runs(call: Call, inputs: Sequence[Tensor]) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """What is timed of each back end that works, warmed up, and why the others do not."""
    runs: dict[str, Callable[[], object]] = {}
    problems: dict[str, str] = {}
    for name, back_end in BACK_ENDS["attention"].items():
        if name == "host":
            continue
        problem = back_end.problem(call) or trial("attention", name, *call[1:5])
        if problem is None:
            try:
                runs[name] = _run(name, inputs, call.gradient)
                runs[name]()
            except RuntimeError as error:  # too little memory for the whole attention matrix, mostly
                runs.pop(name, None)
                problem = str(error).strip().partition("\n")[0]
        if problem is not None:
            problems[name] = problem
    return runs, problems


def _run(name: str, inputs: Sequence[Tensor], backward: bool) -> Callable[[], object]:
    if not backward:
        return partial(attention, *inputs, backend=name)
    out = attention(*inputs, backend=name)
    return partial(torch.autograd.grad, out, inputs, torch.ones_like(out), retain_graph=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    result = {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rows": measure_attention(device, getattr(torch, args.dtype), SHAPES if on_gpu else CPU_SHAPES),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
