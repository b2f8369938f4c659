"""The report of a study: ``results.json`` with every number, ``report.md`` and a plot."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..evaluation.intervals import of_runs
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
    "rgb_loss": "RGB loss",
}
_MEASURES = {"absrel": "AbsRel", "rgb_loss": "RGB loss"}

#: Of a cell: model, T2I images and recipe. Runs that differ in the seed alone have one.
_Group = tuple[str, int, str]


def write_study_report(title: str, results: Sequence[dict[str, Any]], folder: Path) -> None:
    """Of the finished cells (see :func:`.study.finished`)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_text(json.dumps(list(results), indent=1) + "\n", encoding="utf-8")
    columns = _measured(_COLUMNS, results)
    lines = [f"# {title}", "", f"| {' | '.join(columns.values())} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_text(result[key]) for key in columns)} |" for result in results]
    lines += _over_seeds(results)
    if results:
        _plot(title, results, folder / _PLOT)
        lines += ["", f"![{title}]({_PLOT})"]
    (folder / "report.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _measured(names: Mapping[str, str], results: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Those that all cells have: ones that were measured before the last version may lack some."""
    return {key: name for key, name in names.items() if all(key in result for result in results)}


def _over_seeds(results: Sequence[dict[str, Any]]) -> list[str]:
    """A table of the cells that ran with several seeds: means, and differences to the first recipe, paired by seed."""
    groups: defaultdict[_Group, dict[int, dict[str, Any]]] = defaultdict(dict)
    for result in results:
        groups[result["model"], result["pretraining_images"], result["recipe"]][result.get("seed", 0)] = result
    if not any(len(runs) > 1 for runs in groups.values()):
        return []
    first, measures = results[0]["recipe"], _measured(_MEASURES, results)
    columns = [text for name in measures.values() for text in (name, f"minus {first}'s")]
    head = ["model", "T2I images", "recipe", "seeds", *columns]
    lines = ["", "Means over seeds with 95% intervals (Student's t), and differences between runs of one seed:", ""]
    lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for (model, images, recipe), runs in groups.items():
        reference = groups.get((model, images, first), {})
        cells = [model, f"{images:,}", recipe, str(len(runs))]
        for measure in measures:
            shared = [seed for seed in runs if seed in reference and recipe != first]
            cells.append(_estimate([run[measure] for run in runs.values()]))
            cells.append(_estimate([runs[seed][measure] - reference[seed][measure] for seed in shared]))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _estimate(values: Sequence[float]) -> str:
    """The mean of runs with its interval, where there are several."""
    if len(values) < 2:
        return "".join(f"{value:.4f}" for value in values)
    return "{:.4f} ({:.4f} to {:.4f})".format(*of_runs(torch.tensor(values)))


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _plot(title: str, results: Sequence[dict[str, Any]], path: Path) -> None:
    if len({(result["model"], result["pretraining_images"]) for result in results}) == 1:
        _plot_recipes(title, results, path)
    else:
        _plot_sizes(title, results, path)


def _plot_recipes(title: str, results: Sequence[dict[str, Any]], path: Path) -> None:
    """Recipes of one model and budget, a dot for every run."""
    recipes = list(dict.fromkeys(result["recipe"] for result in results))
    with two_plots(path, sharey=True) as (figure, *axes):
        for axis, (measure, name) in zip(axes, _measured(_MEASURES, results).items(), strict=False):
            axis.plot([r[measure] for r in results], [recipes.index(r["recipe"]) for r in results], "o", alpha=0.7)
            axis.set_yticks(range(len(recipes)), labels=recipes)
            axis.set(xlabel=f"held-out {name}")
            axis.grid(alpha=0.3)
        axes[0].invert_yaxis()
        figure.suptitle(title)


def _plot_sizes(title: str, results: Sequence[dict[str, Any]], path: Path) -> None:
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
