"""Run the study of video and write its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..benchmarks.machine import describe
from ..evaluation.video_study import VideoStudy, check_sections
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.settings import Settings
from .generation import prepare
from .json_file import check_folder, write_json
from .progress import say


def run_video_study(settings: Settings, sections: Sequence[str], clips: int, json_file: Path | None) -> dict[str, Any]:
    """The tables of `VideoStudy` with the model's files and the machine; rows are said as they are finished.

    Raises:
        ValueError: an unknown section, or a file that cannot be written.
        ModuleNotFoundError: OpenCV is not installed, and a section follows the flow.
    """
    check_sections(sections)
    check_folder(json_file)
    settings, parts = prepare(settings)
    pipeline = Pipeline(settings, parts, say=say)
    study = VideoStudy(pipeline, settings.steps, settings.seed)
    found: dict[str, Any] = {
        "model_files": pipeline.model_files,
        "machine": describe(pipeline.device),
        "seed": settings.seed,
        "steps": settings.steps,
        "size": study.side,
        "tables": {},
    }
    for section in sections:
        rows = found["tables"].setdefault(section, [])
        for row in study.rows(section, clips):
            rows.append(row)
            numbers = [f"{name} {value:.4f}" for name, value in row.items() if isinstance(value, float)]
            say(f"{section}: {row['name']}: {', '.join(numbers)}")
            write_json(json_file, found)
    return found
