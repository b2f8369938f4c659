"""Run the study of depth at full size and print its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..benchmarks.machine import describe
from ..evaluation.full_size_study import study_full_size
from ..evaluation.joint_enlargement_study import study_joint_enlargement
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.settings import Settings
from .generation import prepare
from .json_file import check_folder, write_json
from .progress import say
from .tables import row_text


def run_study(
    settings: Settings, factors: Sequence[int], count: int, json_file: Path | None, *, sweep: bool, pairs: bool
) -> dict[str, Any]:
    """The rows of `study_full_size` for every factor, said as they are known; a sweep also compares strengths.

    With ``pairs`` those of `study_joint_enlargement`.

    Raises:
        ValueError: a folder that is not there, or a model that works on pictures that are not square.
    """
    check_folder(json_file)
    settings, parts = prepare(settings)
    if settings.canvas[0] != settings.canvas[1]:
        raise ValueError("A study of full size needs a square `size`: the scenes are square.")
    pipeline = Pipeline(settings, parts, (), say)
    found: dict[str, Any] = {
        "model_files": pipeline.model_files,
        "machine": describe(pipeline.device),
        "seed": settings.seed,
        "size": settings.canvas[0],
        "rows": [],
    }
    for factor in factors:
        rows = (
            study_joint_enlargement(pipeline, factor, count, settings.seed, say=say)
            if pairs
            else study_full_size(pipeline, factor, count, settings.seed, sweep=sweep, say=say)
        )
        for row in rows:
            found["rows"].append(row)
            say(f"{row['factor']} times, {row['name']}: {row_text(row)}")
            write_json(json_file, found)
    return found
