"""The report of a study: ``results.json`` with every number, ``report.md`` and a plot."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .plots import two_plots

RESULTS = "results.json"
_PLOT = "study.png"
_COLUMNS = {
    "cell": "cell",
    "parameters": "parameters",
    "pretraining_images": "T2I images",
    "t2i_loss": "T2I loss",
    "absrel": "AbsRel",
    "absrel_standard_error": "its standard error",
    "delta1": "delta1",
}


def write_study_report(title: str, results: Sequence[dict[str, Any]], folder: Path) -> None:
    """Of the finished cells (see :func:`.study.finished`)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_text(json.dumps(list(results), indent=1) + "\n", encoding="utf-8")
    lines = [f"# {title}", "", f"| {' | '.join(_COLUMNS.values())} |", "|" + "---|" * len(_COLUMNS)]
    lines += [f"| {' | '.join(_text(result[key]) for key in _COLUMNS)} |" for result in results]
    if results:
        _plot(title, results, folder / _PLOT)
        lines += ["", f"![{title}]({_PLOT})"]
    (folder / "report.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _plot(title: str, results: Sequence[dict[str, Any]], path: Path) -> None:
    """AbsRel against parameters, a line for every budget and recipe, and against T2I images, a line for every model."""
    recipes = {result["recipe"] for result in results}

    def line(axis: Any, x: str, label: str, points: Sequence[dict[str, Any]]) -> None:
        ordered = sorted(points, key=lambda result: result[x])
        places, values = [r[x] for r in ordered], [r["absrel"] for r in ordered]
        (drawn,) = axis.plot(places, values, marker="o", label=label)
        errors = [r["absrel_standard_error"] for r in ordered]
        axis.errorbar(places, values, errors, fmt="none", ecolor=drawn.get_color())

    with two_plots(path, sharey=True) as (figure, left, right):
        for recipe in dict.fromkeys(result["recipe"] for result in results):
            chosen = [result for result in results if result["recipe"] == recipe]
            suffix = f", {recipe}" if len(recipes) > 1 else ""
            for images in sorted({result["pretraining_images"] for result in chosen}):
                points = [result for result in chosen if result["pretraining_images"] == images]
                line(left, "parameters", f"{images:,} T2I images{suffix}", points)
            for count in sorted({result["parameters"] for result in chosen}):
                points = [result for result in chosen if result["parameters"] == count]
                line(right, "pretraining_images", f"{count / 1e6:.1f} M parameters{suffix}", points)
        left.set(xlabel="parameters", xscale="log", ylabel="held-out AbsRel, image to depth")
        right.set(xlabel="T2I images", xscale="log")
        counts, budgets = ({result[x] for result in results} for x in ("parameters", "pretraining_images"))
        left.set_xticks(sorted(counts), labels=[f"{count / 1e6:.3g} M" for count in sorted(counts)])
        right.set_xticks(sorted(budgets), labels=[f"{images:,}" for images in sorted(budgets)])
        for axis in (left, right):
            axis.minorticks_off()
            axis.legend(fontsize="small")
            axis.grid(alpha=0.3)
        figure.suptitle(title)
