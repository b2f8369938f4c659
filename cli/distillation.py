"""Students of few steps against their teacher: the evaluation of given ones, and the study that trains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..benchmarks.machine import describe
from ..evaluation.distillation import Counts, Student, compare
from ..evaluation.sampling_subject import Subject
from ..mforce_core.parts import Parts
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.settings import Settings
from ..training.distillation_study import read_distillation_study, students, train_students
from .generation import prepare
from .json_file import check_folder, write_json
from .progress import say

#: Measures of the tables, and their titles.
_COLUMNS = {
    "shape_error": "wrong shapes",
    "color_error": "wrong colors",
    "outline_error": "outline error",
    "rgb_seam": "seams",
    "depth_seam": "seams of depth",
    "joint_absrel": "AbsRel joint",
    "i2d_absrel": "AbsRel image to depth",
    "d2i_absrel": "AbsRel depth to image",
    "joint_frechet": "Fréchet joint",
    "d2i_frechet": "Fréchet depth to image",
    "diversity": "diversity",
}


def evaluate_students(
    settings: Settings, models: Mapping[str, Path], steps: Sequence[int], counts: Counts, *,
    teacher_steps: int, reference: Path | None, json_file: Path | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of `compare`, also written to ``json_file``, which holds those so far while the others are made.

    Args:
        settings: of the teacher, with the seed of scenes and noise.
        models: folders or files by name; what lies not beside them is taken from the teacher.

    Raises:
        ValueError: a model that cannot be loaded, or a file that cannot be written.
    """
    for file in (reference, json_file):
        check_folder(file)
    settings, parts = prepare(settings)
    words, vae = str(parts.text_encoder), str(parts.vae)
    opened = {}
    for name, model in models.items():
        own, found = prepare(replace(settings, model=str(model), text_encoder=words, vae=vae))
        opened[name] = Student(partial(_load, own, found), found.header().config.distilled)
    teacher = _load(settings, parts)
    found_here = {"machine": describe(teacher.pipeline.device), "seed": settings.seed, "counts": vars(counts)}
    rows = []
    for row in compare(teacher, opened, steps, counts, teacher_steps=teacher_steps, reference=reference):
        rows.append(row)
        write_json(json_file, {**found_here, "rows": rows})
    return rows


def _load(settings: Settings, parts: Parts) -> Subject:
    return Subject(Pipeline(settings, parts, (), say), settings.seed)


def run_distillation_study(config: Path, overrides: Sequence[str], only: str, device: str) -> Path:
    """Train the students of a study and compare them; returns its report.

    Raises:
        ValueError: a bad configuration.
        Stopped: Ctrl-C or SIGTERM ended one of the runs.
    """
    study = read_distillation_study(config)
    configs = students(study, overrides, only)
    models = train_students(configs)
    base = next(iter(configs.values())).base
    settings = Settings("joint", "", model=str(base), seed=1_000_000, device=device)
    counts = Counts(study.prompts, study.scenes, study.varied, study.seeds)
    rows = evaluate_students(
        settings, models, study.steps, counts, teacher_steps=study.teacher_steps,
        reference=study.out / "teacher.safetensors", json_file=study.out / "results.json",
    )  # fmt: skip
    report = study.out / "report.md"
    report.write_text(f"# {study.title}\n\n{table(rows)}\n", encoding="utf-8")
    torch.compiler.reset()
    return report


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows in Markdown, each value with half the width of its interval."""
    lines = [f"| model | steps | {' | '.join(_COLUMNS.values())} |", "|" + "---|" * (2 + len(_COLUMNS))]
    lines += [
        f"| {row['name']} | {row['steps']} | {' | '.join(_cell(row, name) for name in _COLUMNS)} |" for row in rows
    ]
    return "\n".join(lines)


def _cell(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return ""
    low, high = row["intervals"][name]
    return f"{row[name]:.3g} ± {(high - low) / 2:.2g}"
