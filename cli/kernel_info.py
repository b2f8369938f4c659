"""``mforce info --kernels``: what runs each step of the model on every device of this machine, and why."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..kernels import kernel_report
from ..kernels.attention import attention_report

#: Device -> operation -> "back_end" and "reason".
Report = Mapping[str, Mapping[str, Mapping[str, str]]]


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


def _operations(device: torch.device) -> dict[str, dict[str, str]]:
    rows = {
        operation: {"back_end": "triton" if reason is None else "reference", "reason": reason or "it works here"}
        for operation, reason in kernel_report(device).items()
    }
    attention = attention_report(device)
    works = [name for name, problem in attention.back_ends.items() if problem is None]
    rows["attention"] = {"back_end": ", ".join(works), "reason": attention.rule}
    for name, problem in attention.back_ends.items():
        if problem is not None:
            rows[f"attention, {name}"] = {"back_end": "not used", "reason": problem}
    return rows


def print_kernels(devices: Report) -> None:
    """Print the answer of `describe_kernels`, a table a device."""
    console = Console()
    for device, operations in devices.items():
        table = Table("operation", "back end", "why", title=escape(device), title_justify="left")
        for operation, row in operations.items():
            table.add_row(escape(operation), escape(row["back_end"]), escape(row["reason"]))
        console.print(table)
