"""One denoise step against its op-by-op formulation and against what its matrix products alone would take.

All formulations run the same weights in one process and take turns.
"""

import gc
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from . import op_by_op, peak_memory
from .formulations import Step, steps
from .subjects import Subject
from .timing import compare, phrase


def measure_step(
    subject: Subject, device: torch.device, dtype: torch.dtype, repeats: int, matmul_rate: float, compiled: bool
) -> dict[str, Any]:
    """``formulations``: rows as :func:`.timing.compare` makes them, with ``times_floor`` and ``peak_bytes``: all that
    was allocated (GPU), or the resident memory beyond the loaded model's (CPU).

    ``floor``: the operations of all matrix products at ``matmul_rate`` and of attention at the rate of PyTorch's own
    function, measured here; its ``seconds`` count nothing else.
    """
    model = subject.model(device, dtype)
    runs = steps(subject, model, device, compiled)
    # Before anything else is allocated, and before compilers and graphs keep memory of their own.
    peaks = {name: _peak(runs[name], name, subject, device, dtype) for name in ("mforce", "op_by_op")}
    floor = _floor(subject, device, dtype, repeats, matmul_rate)
    rows = compare(runs, device, repeats)
    for row in rows:
        row |= peaks.get(row["name"], {})
        if "seconds" in row:
            row["times_floor"] = row["seconds"]["median"] / floor["seconds"]
    return {
        "architecture": subject.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": [subject.text, subject.image, subject.image],
        "floor": floor,
        "formulations": rows,
    }


def operations(subject: Subject) -> tuple[int, int]:
    """Of a step's matrix products without attention's, and of attention's."""
    sizes, nowhere = subject.architecture, torch.device("meta")
    model = subject.model(nowhere, torch.float32)
    t = torch.zeros(1, device=nowhere)
    with FlopCounterMode(display=False) as counter:
        op_by_op.forward(model, *subject.inputs(nowhere), t, t, subject.grid)
    joint = (sizes.depth_double + sizes.depth_single) * subject.tokens**2
    attention = 4 * sizes.hidden_size * (joint + sizes.depth_decoder_num_layers * subject.image**2)
    return counter.get_total_flops() - attention, attention


def _floor(
    subject: Subject, device: torch.device, dtype: torch.dtype, repeats: int, matmul_rate: float
) -> dict[str, float]:
    products, attention = operations(subject)
    sizes = subject.architecture
    q, k, v = torch.randn(3, 1, sizes.num_heads, subject.tokens, sizes.head_dim, device=device, dtype=dtype)
    (row,) = compare({"sdpa": lambda: scaled_dot_product_attention(q, k, v)}, device, repeats, queued=True)
    attention_rate = 4 * sizes.hidden_size * subject.tokens**2 / row["seconds"]["median"]
    return {
        "matmul_operations": products,
        "attention_operations": attention,
        "matmul_operations_per_second": matmul_rate,
        "attention_operations_per_second": attention_rate,
        "seconds": products / matmul_rate + attention / attention_rate,
    }


def _peak(run: Step, name: str, subject: Subject, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    try:
        if device.type == "cuda":
            gc.collect()
            return {"peak_bytes": peak_memory.on_gpu(run, device)}
        return {"peak_bytes": peak_memory.elsewhere(name, subject.name, dtype)}
    except Exception as error:  # too little memory, or a system that does not tell
        return {"peak_problem": phrase(error)}
