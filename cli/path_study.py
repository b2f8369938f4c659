"""``mforce study trajectories`` and ``mforce study conditioning``: samples, a judge, a table and a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..evaluation import studies
from ..evaluation.depth.alignment import AFFINE_ALIGNMENTS, ALIGNMENTS, Kind, Limits, formula
from ..evaluation.depth.predictors import FromModel, FromPeer
from ..evaluation.intervals import Estimate
from ..evaluation.studies import StudyJob, StudyWorker, portions
from ..evaluation.table import Table
from ..mforce_core.release import CFG
from ..mforce_core.results.provenance import identify
from ..mforce_core.settings import Settings
from .depth_evaluation import describe, weights_of
from .generation import prepare
from .progress import progress_bar, say
from .prompts_file import read_prompts
from .spread import Workers, spread

_TITLES = {
    "trajectories": "Trajectories: sampled depth against the depth that a judge sees in the sampled picture",
    "conditioning": "Conditioning: the depth that a judge sees in a picture against the depth it was made from",
}


def run_path_study(
    study: studies.StudyName,
    settings: Settings,
    values: Sequence[float | None],
    count: int,
    output: Path,
    *,
    judge: str | None,
    judge_kind: Kind,
    alignment: str,
    prompts: Path | None,
    batch: int,
    overwrite: bool,
    workers: Workers,
) -> dict[str, Any]:
    """Run a study; a stopped one goes on in its folder.

    Args:
        study: which.
        settings: of the model; mode joint.
        values: of log2 alpha; None is given depth that stays clean.
        count: pictures for each value.
        output: folder of the results.
        judge: a peer, or None for the model's own image to depth.
        judge_kind: what a peer predicts.
        alignment: of the judged depth.
        prompts: a file with one a line; None: captions of rendered scenes.
        batch: pictures that are sampled together.
        overwrite: start again in a folder with results.
        workers: where it runs.

    Returns:
        What ``summary.json`` holds.

    Raises:
        ValueError: nothing can be sampled like this.
    """
    if alignment not in ALIGNMENTS:
        raise ValueError(f"There is no alignment {alignment}: there are {', '.join(ALIGNMENTS)}.")
    if study == "trajectories" and None in values:
        raise ValueError("The values of trajectories are numbers: clean is for conditioning.")
    resolved, parts = prepare(settings)
    lines = () if prompts is None else tuple(read_prompts(prompts))
    if prompts is not None and study == "conditioning":
        raise ValueError("Conditioning is on rendered scenes, which have captions: --prompts is for trajectories.")
    if study == "trajectories" and judge is not None and judge_kind == "disparity":
        raise ValueError(
            "The sampled depth is compared with depth: a judge of disparity knows it up to an offset only."
        )
    if lines and len(lines) < count:
        raise ValueError(f"{prompts} has {len(lines)} prompts for {count} pictures.")
    if judge is None:
        own = replace(resolved, mode="i2d", cfg=CFG["i2d"], tilt=None, follow=None)
        seen_by: FromModel | FromPeer = FromModel(own, parts)
    else:
        seen_by = FromPeer(judge, judge_kind)
    if seen_by.affine and study == "trajectories":
        raise ValueError(
            "The sampled depth is compared with the judge's, and this judge's has neither scale nor shift."
        )
    if seen_by.affine and alignment not in AFFINE_ALIGNMENTS:
        raise ValueError(
            f"This judge's depth has neither scale nor shift: --align is {' or '.join(AFFINE_ALIGNMENTS)} then, not "
            f"{alignment}."
        )
    job = StudyJob(study, resolved, parts, seen_by, alignment, lines[:count], settings.seed)
    table = Table(output, _settings(job, values, count), overwrite=overwrite)
    todo = [
        portion
        for portion in portions(values, count, batch)
        if any(studies.row_name(portion.value, index) not in table.rows for index in portion.indices)
    ]
    all_pictures = len(values) * count
    try:
        with progress_bar(study) as advance:
            advance(len(table.rows), all_pictures)
            for rows in spread(StudyWorker, job, todo, workers):
                for row in rows:
                    table.add(row)
                advance(len(table.rows), all_pictures)
    finally:
        table.close()
    for row in table.failures[:10]:
        say(f"Not judged: {row.name}: {row.reason}.")
    return _report(output, job, table, values, count)


def _settings(job: StudyJob, values: Sequence[float | None], count: int) -> dict[str, Any]:
    """Everything that decides the numbers."""
    return {
        "study": job.study,
        "values": list(values),
        "pictures": count,
        "settings": job.settings.decisive(),
        "files": {part: [identify(file) for file in files] for part, files in job.parts.files().items()},
        "judge": {"is": describe(job.judge), **weights_of(job.judge)},
        "alignment": job.alignment,
        "prompts": list(job.prompts),
        "seed": job.seed,
    }


def _report(output: Path, job: StudyJob, table: Table, values: Sequence[float | None], count: int) -> dict[str, Any]:
    means = studies.by_value(table, values)
    facts = [
        f"{job.settings.model}, {job.settings.steps} steps, guidance {CFG['joint']:g}, {count} pictures for each value "
        f"({'prompts' if job.prompts else 'captions of rendered scenes'}), seed {job.seed}",
        f"judge: {describe(job.judge)}",
        f"alignment {job.alignment}: {formula(job.alignment, Limits())}",
    ]
    ends = studies.paired_difference(table, values[0], values[-1], count)
    summary = {
        "study": job.study,
        "facts": facts,
        "means": {value: {name: list(estimate) for name, estimate in row.items()} for value, row in means.items()},
        "first_minus_last_absrel": None if ends is None else list(ends),
        "failed": {row.name: row.reason for row in table.failures},
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", "utf-8")
    lines = [f"# {_TITLES[job.study]}", "", *(f"- {fact}." for fact in facts), ""]
    lines += ["| log2 alpha | AbsRel | 95% interval | delta1 |", "|---|---|---|---|"]
    for value, row in means.items():
        error = row["absrel"]
        lines.append(
            f"| {value} | {error.value:.4f} | {error.low:.4f} to {error.high:.4f} | {row['delta1'].value:.4f} |"
        )
    if ends is not None:
        lines += ["", _sentence(values, ends)]
    if _plot(output / "study.png", means):
        lines += ["", "![AbsRel by log2 alpha](study.png)"]
    (output / "report.md").write_text("\n".join(lines) + "\n", "utf-8")
    return summary


def _sentence(values: Sequence[float | None], ends: Estimate) -> str:
    first, last = studies.label(values[0]), studies.label(values[-1])
    return (
        f"AbsRel at {first} minus AbsRel at {last}, picture by picture: {ends.value:.4f} "
        f"({ends.low:.4f} to {ends.high:.4f})."
    )


def _plot(path: Path, means: dict[str, dict[str, Estimate]]) -> bool:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    errors = [row["absrel"] for row in means.values()]
    low, high = ([error.value - error.low for error in errors], [error.high - error.value for error in errors])
    axes.errorbar(list(means), [error.value for error in errors], yerr=[low, high], marker="o", capsize=3)
    axes.set(xlabel="log2 alpha", ylabel="AbsRel")
    axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return True
