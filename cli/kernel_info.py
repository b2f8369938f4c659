"""``mforce info --kernels``: what runs each step of the model on every device of this machine, and why."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..kernels import kernel_report

#: Device -> operation -> "back_end", "reason", "back_ends" (name -> "works" or why not) and "measured".
Report = dict[str, dict[str, dict[str, Any]]]


def describe_kernels() -> Report:
    """Every device of this machine, each operation's back end for bfloat16 and the reason for it."""
    return {_name(device): _operations(device) for device in _devices()}


def _devices() -> list[torch.device]:
    found = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append(torch.device("mps"))
    return [*found, torch.device("cpu")]


def _name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _operations(device: torch.device) -> dict[str, dict[str, Any]]:
    return {
        op: {
            "back_end": report.runs_on,
            "reason": report.reason,
            "back_ends": {name: problem or "works" for name, problem in report.back_ends.items()},
            "measured": report.measured,
        }
        for op, report in kernel_report(device).items()
    }


def print_kernels(devices: Report) -> None:
    """Print the answer of `describe_kernels`, one table per device."""
    console = Console()
    for device, operations in devices.items():
        table = Table("operation", "runs on", "why", "back ends", title=escape(device), title_justify="left")
        for operation, row in operations.items():
            others = "\n".join(f"{name}: {problem}" for name, problem in row["back_ends"].items())
            table.add_row(escape(operation), escape(row["back_end"]), escape(row["reason"]), escape(others))
            table.add_section()
        console.print(table)
