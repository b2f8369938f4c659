"""What a person reads at the end: means with intervals, what failed, the worst pictures, how errors are spread."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..mforce_core.depth.colormaps import colorize
from ..mforce_core.results.contact_sheet import contact_sheet, stack
from . import intervals
from .intervals import Estimate
from .table import Table

#: Failures that the report lists; the table has all.
_LISTED = 20


def summarize(table: Table) -> dict[str, Estimate]:
    """Mean of every measure over the pictures that have it, with its interval."""
    return {name: intervals.mean(torch.tensor(table.column(name), dtype=torch.float64)) for name in table.measures}


def write_report(
    folder: Path, title: str, facts: Sequence[str], table: Table, extra: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Write ``summary.json``, ``report.md`` and, where matplotlib is installed, ``errors.png``.

    Args:
        folder: of the run.
        title: of the report.
        facts: sentences on data, prediction and protocol, which stand above every number.
        table: of the pictures.
        extra: numbers of all pictures together, by name.

    Returns:
        What ``summary.json`` holds: means by name, ``intervals``, ``pictures``, ``failed`` and ``facts``.
    """
    estimates = summarize(table)
    scored = len(table.rows) - len(table.failures)
    extra = extra or {}
    summary = (
        dict(extra)
        | intervals.as_json(estimates)
        | {
            "pictures": scored,
            "failed": {row.name: row.reason for row in table.failures},
            "facts": list(facts),
        }
    )
    (folder / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", "utf-8")
    lines = [f"# {title}", "", *(f"- {fact}." for fact in facts), ""]
    lines += [f"{scored} pictures scored, {len(table.failures)} could not be.", ""]
    lines += ["| measure | mean | 95% interval | pictures |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {value:.6g} | {low:.6g} to {high:.6g} | {len(table.column(name))} |"
        for name, (value, low, high) in estimates.items()
    ]
    lines += [f"| {name} | {value:.6g} | | {scored} |" for name, value in extra.items()]
    if table.failures:
        lines += ["", "## Not scored", ""]
        lines += [f"- {row.name}: {row.reason}" for row in table.failures[:_LISTED]]
        if len(table.failures) > _LISTED:
            lines.append(f"- and {len(table.failures) - _LISTED} more, in the table")
    if _plot(folder / "errors.png", table):
        lines += ["", "![Errors of all pictures, sorted](errors.png)"]
    if (folder / "worst.jpg").is_file():
        lines += ["", "![The worst pictures](worst.jpg)"]
    (folder / "report.md").write_text("\n".join(lines) + "\n", "utf-8")
    return summary


def _plot(path: Path, table: Table) -> bool:
    """AbsRel of the pictures, sorted, one line per alignment."""
    names = [name for name in table.measures if name.endswith("absrel")]
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    if not names:
        return False
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in names:
        values = np.sort(table.column(name))
        axes.plot(np.linspace(0, 100, len(values)), values, label=name)
    axes.set(xlabel="share of the pictures, %", ylabel="AbsRel", yscale="log")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return True


def depth_tiles(image: np.ndarray, truth: np.ndarray, mask: np.ndarray, aligned: np.ndarray) -> list[Any]:
    """Titled tiles of a contact sheet: picture, truth, prediction and relative error, depth in one range of color."""
    known = np.where(mask, truth, np.nan)
    low, high = np.nanpercentile(known, (2, 98))
    error = np.abs(aligned - truth) / np.where(mask, truth, np.nan)
    return [
        ("picture", image),
        ("truth", _colored(known, low, high)),
        ("prediction", _colored(aligned, low, high)),
        ("|p - g| / g, white = 0.3", _gray(error / 0.3)),
    ]


def write_sheet(path: Path, rows: Mapping[str, tuple[list[Any], str]]) -> None:
    """Write pictures below one another: name -> tiles and small print."""
    sheets = [contact_sheet(tiles, name, details) for name, (tiles, details) in rows.items()]
    if sheets:
        stack(sheets).convert("RGB").save(path, quality=88)


def _colored(depth: np.ndarray, low: float, high: float) -> np.ndarray:
    share = np.nan_to_num((depth - low) / max(high - low, 1e-12), nan=0.0).clip(0, 1)
    pixels = (colorize(1 - share, "spectral") * 255).round().astype(np.uint8)
    pixels[~np.isfinite(depth)] = 0
    return pixels


def _gray(values: np.ndarray) -> np.ndarray:
    levels = (np.nan_to_num(values, nan=0.0).clip(0, 1) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(levels).convert("RGB"))
