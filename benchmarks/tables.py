"""The report of ``mforce bench`` for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Report = Mapping[str, Any]


def print_report(report: Report) -> None:
    """Tables of what was measured, and only of that."""
    console = Console()
    machine, ceilings = report["machine"], report["ceilings"]
    console.print(
        f"{machine['device']}, torch {machine['torch']}, {report['architecture']}, {report['dtype']}, "
        f"medians of {report['repeats']} interleaved rounds (lower to upper quartile)\n"
        f"copies {ceilings['copy_bytes_per_second'] / 1e9:,.0f} GB/s, "
        f"multiplies {ceilings['matmul_operations_per_second'] / 1e12:,.2f} TFLOP/s",
        highlight=False,
        markup=False,
    )
    for title, head, rows in _tables(report):
        table = Table(*head, title=title, title_justify="left")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)


def _tables(report: Report) -> Iterable[tuple[str, list[str], list[list[str]]]]:
    for name in ("kernels", "attention", "step", "rollout", "training"):
        if isinstance(report.get(name), dict) and "problem" in report[name]:
            yield name, ["problem"], [[report[name]["problem"]]]
    if isinstance(report.get("kernels"), list):
        head = ["kernel", "pass", "by", "time", "GB/s", "of copy", "our speed-up"]
        yield "kernels", head, [_kernel_row(row) for row in report["kernels"]]
    if isinstance(report.get("attention"), list):
        head = ["pass", "back end", "time", "TFLOP/s", "over best sdpa"]
        yield "attention", head, [_attention_row(row) for row in report["attention"]]
    step = report.get("step", {})
    if "formulations" in step:
        head = ["formulation", "time", "our speed-up", "over the floor", "peak memory"]
        title = f"one denoise step, floor {_time(step['floor']['seconds'])}"
        yield title, head, [_step_row(row) for row in step["formulations"]]
    rollout = report.get("rollout", {})
    if "formulations" in rollout:
        head = ["formulation", "time", "our speed-up", "a step"]
        title = f"rollout of {rollout['steps']} steps with guidance"
        yield title, head, [_rollout_row(row) for row in rollout["formulations"]]
    training = report.get("training", {})
    if "formulations" in training:
        head = ["formulation", "time", "our speed-up", "tokens/s", "MFU", "peak memory"]
        title = f"one training step of {training['preset']}, {training['batch_size']} samples; MFU of the rate above"
        yield title, head, [_training_row(row) for row in training["formulations"]]
    if report["targets"]:
        rows = [
            [row["target"], row["wanted"], f"{row['measured']:.2f}", "yes" if row["met"] else "no"]
            for row in report["targets"]
        ]
        yield "targets", ["target", "wanted", "measured", "met"], rows


def _kernel_row(row: Report) -> list[str]:
    first = [row["kernel"], row["pass"], row["name"]]
    if "problem" in row:
        return [*first, row["problem"]]
    return [*first, _spread(row), f"{row['bytes_per_second'] / 1e9:,.1f}", f"{row['of_copy']:.0%}", _speed_up(row)]


def _attention_row(row: Report) -> list[str]:
    if "problem" in row:
        return [row["pass"], row["backend"], row["problem"]]
    relative = row["speed_over_best_sdpa"]
    return [
        row["pass"],
        row["backend"],
        _time(row["seconds"]),
        f"{row['operations_per_second'] / 1e12:,.2f}",
        "" if relative is None else f"{relative:.2f}",
    ]


def _step_row(row: Report) -> list[str]:
    if "problem" in row:
        return [row["name"], row["problem"]]
    peak = f"{row['peak_bytes'] / 1e9:,.2f} GB" if "peak_bytes" in row else row.get("peak_problem", "")
    return [row["name"], _spread(row), _speed_up(row), f"{row['times_floor']:.2f}", peak]


def _rollout_row(row: Report) -> list[str]:
    if "problem" in row:
        return [row["name"], row["problem"]]
    return [row["name"], _spread(row), _speed_up(row), _time(row["seconds_per_step"])]


def _training_row(row: Report) -> list[str]:
    if "problem" in row:
        return [row["name"], row["problem"]]
    rates = [f"{row['tokens_per_second']:,.0f}", f"{row['model_flops_utilization']:.0%}"]
    peak = f"{row['peak_bytes'] / 1e9:,.2f} GB" if "peak_bytes" in row else ""
    return [row["name"], _spread(row), _speed_up(row), *rates, peak]


def _speed_up(row: Report) -> str:
    return f"{row['times_ours']:.2f}" if "times_ours" in row and row["name"] != "mforce" else ""


def _spread(row: Report) -> str:
    seconds = row["seconds"]
    quartiles = f"{_time(seconds['lower_quartile'])} to {_time(seconds['upper_quartile'])}"
    return f"{_time(seconds['median'])} ({quartiles})"


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1), ("ms", 1e3)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
