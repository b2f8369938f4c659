"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..mforce_core.model.config import Distilled
from .checkpoint_info import CheckpointSummary
from .lora_info import LoraSummary
from .memory_table import print_memory

#: More different numbers than these are told by their least and largest.
_FEW = 6


def print_checkpoint(found: CheckpointSummary) -> None:
    """Print the answer of `describe_checkpoint`."""
    architecture = {} if found.architecture is None else found.architecture.to_dict()
    kind = found.kind if found.variant is None else f"{found.kind}, {found.variant}"
    rows = {
        "kind": kind if found.update is None else f"{kind}: the base below with {found.update}, a LoRA, added to it",
        "parameters": f"{found.parameters:,} in {found.tensors} tensors",
        "file size": f"{found.bytes / 2**20:,.1f} MiB",
        "dtype": ", ".join(f"{name} ({count})" for name, count in found.dtypes.items()),
        "name prefix": repr(found.prefix),
        "beside it": ", ".join(found.beside) or "nothing",
        **{_spaced(part): name for part, name in found.named.items()},
        **{name: str(value) for name, value in architecture.items()},
        "license": found.license,
    }
    if found.distilled:
        rows["made for"] = _made_for(found.distilled)
    if found.quantized:
        rows["quantized"] = ", ".join(f"{name} ({count} layers)" for name, count in found.quantized.items())
    for part in found.parts:
        dtypes = ", ".join(f"{name} ({count})" for name, count in part.dtypes.items())
        rows[f"inside: {part.part}"] = f"{part.name}, {part.bytes / 2**20:,.1f} MiB, {dtypes}"
    if others := found.other_tensors - sum(part.tensors for part in found.parts):
        rows["other tensors"] = f"{others} outside the prefix"
    table = Table(title=escape(found.path), show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console = Console()
    console.print(table)
    if found.memory is not None:
        print_memory(found.memory)
    for problem in found.problems:
        console.print(f"Problem: {problem}", markup=False, style="red")
    if not found.problems:
        console.print("No problems found: every tensor has the name and shape that the architecture needs.")


def print_lora(found: LoraSummary) -> None:
    """Print the answer of `describe_lora`."""

    def counted(values: Mapping[Any, int]) -> str:
        if len(values) > _FEW and not any(isinstance(value, str) for value in values):
            return f"{min(values):.4g} to {max(values):.4g}"
        return ", ".join(f"{value} ({count})" for value, count in values.items())

    blocks = f"{found.double_blocks} double and {found.single_blocks} single blocks"
    rows = {
        "kind": "LoRA, low-rank updates of a model",
        "layers": f"{found.layers:,} low-rank, {found.whole:,} whole; {found.parameters:,} parameters",
        "rank": counted(found.rank),
        "alpha": counted(found.alpha),
        "targets": counted(found.targets),
        "dtype": counted(found.dtypes),
        "transformer": f"width {found.width}, at least {blocks}",
        "fits": "; ".join(found.fits) or "no model known here",
    }
    if found.distilled:
        rows["made for"] = _made_for(found.distilled)
    table = Table(title=escape(found.path), show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console = Console()
    console.print(table)
    for problem in found.problems:
        console.print(f"Problem: {problem}", markup=False, style="red")


def print_metrics(metrics: Mapping[str, Any]) -> None:
    """Print numbers by name, with those of their 95% intervals that there are."""
    table = Table("metric", "value", "95% interval")
    intervals = metrics.get("intervals", {})
    for name, value in metrics.items():
        if name != "intervals":
            interval = "{:.4f} to {:.4f}".format(*intervals[name]) if name in intervals else ""
            table.add_row(escape(name), f"{value:.4f}" if isinstance(value, float) else escape(str(value)), interval)
    Console().print(table)


def row_text(row: Mapping[str, Any]) -> str:
    """The measures of a row of a study, which are its floats."""
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float))


def print_counts(found: Mapping[str, Any]) -> None:
    """Print nested counts, a row for every group of plain values."""
    table = Table(show_header=False)
    for name, value in _grouped(found):
        table.add_row(escape(name), escape(value))
    Console().print(table)


def _grouped(found: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, str]]:
    plain = {name: value for name, value in found.items() if not isinstance(value, Mapping)}
    if inside and plain:
        yield inside, ", ".join(f"{_spaced(name)} {_short(value)}" for name, value in plain.items())
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _grouped(value, f"{inside}, {_spaced(name)}" if inside else _spaced(name))
        elif not inside:
            yield _spaced(name), _short(value)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _made_for(distilled: Distilled) -> str:
    others = f", {distilled.exceptions}" if distilled.exceptions else ""
    return f"{distilled.steps} steps ({distilled.sampler}) without guidance{others}; joint path: {distilled.path}"
