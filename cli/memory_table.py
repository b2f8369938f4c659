"""``mforce info --memory``: what the weights of a model take, by part and precision."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from ..mforce_core.conversion.convert import PRECISIONS
from ..mforce_core.conversion.memory import count_parameters, largest_layer, weight_bytes
from ..mforce_core.model.config import Architecture


def memory_of(architecture: Architecture) -> dict[str, Any]:
    """JSON-able: ``parameters`` by part; ``bytes`` by precision and part; ``largest_tensor`` in bytes by precision."""
    return {
        "parameters": count_parameters(architecture),
        "bytes": {precision: weight_bytes(architecture, precision) for precision in PRECISIONS},
        "largest_tensor": {precision: largest_layer(architecture, precision) for precision in PRECISIONS},
    }


def print_memory(memory: dict[str, Any]) -> None:
    """Print the answer of `memory_of`, in millions of parameters and MiB."""
    table = Table("part", "parameters", *PRECISIONS, title="Weights in memory, MiB", title_justify="left")
    sizes = memory["bytes"]
    for part, count in memory["parameters"].items():
        table.add_row(part, f"{count / 1e6:,.1f} M", *(_mib(sizes[p][part]) for p in PRECISIONS))
    table.add_section()
    total = sum(memory["parameters"].values())
    table.add_row("all", f"{total / 1e6:,.1f} M", *(_mib(sum(sizes[p].values())) for p in PRECISIONS))
    table.add_row("largest tensor", "", *(_mib(memory["largest_tensor"][p]) for p in PRECISIONS))
    Console().print(table)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f}"
