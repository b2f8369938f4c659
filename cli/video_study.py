"""Run the study of video and write its tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..benchmarks.machine import describe
from ..evaluation.video_study import VideoStudy, check_sections
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.settings import Settings
from ..mforce_core.whole_file import whole_file
from .generation import prepare
from .progress import say


def run_video_study(settings: Settings, sections: Sequence[str], clips: int, json_file: Path | None) -> dict[str, Any]:
    """The tables of `VideoStudy` with the model's files and the machine; rows are said as they are finished.

    Raises:
        ValueError: an unknown section, or a file that cannot be written.
        ModuleNotFoundError: OpenCV is not installed, and a section follows the flow.
    """
    check_sections(sections)
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ValueError(f"The folder of {json_file} does not exist: make it first.")
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
            if json_file is not None:
                with whole_file(json_file) as partial:
                    partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found
