"""What Python takes for a call of each Triton kernel: ``python -m mforce.benchmarks.python_time``.

A small model, or a slow processor beside a fast GPU, waits for it. On a CPU the kernels do nothing when they are
launched: what is left is the choice of a back end, autograd, buffers, and the sums behind a backward pass. On a GPU
their launches count too, and the device is not waited for. Sequences are short; the time hardly depends on them.
"""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..kernels import back_end
from ..kernels import triton as triton_kernels
from ..mforce_core.model.config import Architecture
from .kernel_cases import cases
from .subjects import Subject

#: Calls of each before and while it is timed; one in twenty of them is faster than what is reported.
_WARM, _CALLS = 20, 600


def measure_python_time(device: torch.device) -> list[dict[str, Any]]:
    """Rows with ``kernel`` and seconds of ``inference``, ``forward`` (recorded) and ``backward``."""
    sizes = Architecture(hidden_size=64, num_heads=2, axes_dim=(8, 8, 8, 8), depth_double=1, depth_single=1)
    rows = []
    with back_end("triton"):
        for case in cases(Subject("tiny", sizes, text=4, grid=(2, 3)), device, torch.float32):
            run = partial(case.hands["mforce"], *case.draw())
            row = {"kernel": case.name, "inference": _seconds(torch.no_grad()(run), device)}
            if case.backward_bytes is not None:
                inputs = [x.requires_grad_(i < case.differentiable) for i, x in enumerate(case.draw())]
                run = partial(case.hands["mforce"], *inputs)
                outputs = run()
                slopes = [torch.ones_like(output) for output in outputs]
                back = partial(
                    torch.autograd.grad,
                    outputs,
                    inputs[: case.differentiable],
                    slopes,
                    retain_graph=True,
                    allow_unused=True,
                )
                row |= {"forward": _seconds(run, device), "backward": _seconds(back, device)}
            rows.append(row)
    return rows


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(_WARM + _CALLS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a full queue would make Python wait
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return sorted(times[_WARM:])[_CALLS // 20]


def _launch_nothing() -> None:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which the next line does first
    problem = triton_kernels.missing(torch.device("cpu"))
    if problem is not None:
        raise SystemExit(f"Triton's interpreter does not run here: {problem}.")
    for name in ("adaln", "rope", "swiglu"):
        module = vars(triton_kernels)[name]
        vars(module)["launch"] = lambda *arguments, **constants: None


def main() -> None:
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cpu":
        _launch_nothing()
    for row in measure_python_time(device):
        print(json.dumps({name: value if name == "kernel" else round(value * 1e6, 1) for name, value in row.items()}))


if __name__ == "__main__":
    main()
