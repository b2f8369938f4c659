"""Run the study of sampling and print its tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..benchmarks.machine import describe
from ..evaluation.sampling_study import COUNTS, study
from ..evaluation.sampling_subject import Subject
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.settings import Settings
from ..mforce_core.text_file import read_text
from .generation import prepare
from .json_file import check_folder, write_json
from .progress import say
from .prompts_file import read_prompts
from .tables import row_text


def run_study(
    settings: Settings,
    sections: Sequence[str],
    *,
    count: int | None,
    prompts: Path | None,
    reference: Path | None,
    json_file: Path | None,
) -> dict[str, Any]:
    """The tables of `study`, with the model's files and the machine; rows are said as they are finished.

    With ``json_file`` rows are written as they are finished, those that it holds already are not measured again, and
    whatever else it holds stays.

    Raises:
        ValueError: a file that cannot be read or written, tables of another model or of other settings, or an unknown
            section.
    """
    check_folder(json_file)
    texts = None
    if prompts is not None:
        texts = read_prompts(prompts)
    settings, parts = prepare(settings)
    pipeline = Pipeline(settings, parts, texts or (), say)
    subject = Subject(pipeline, settings.seed)
    found: dict[str, Any] = {"model_files": pipeline.model_files, "machine": describe(pipeline.device)}
    kept: dict[str, Any] = {}
    if json_file is not None and json_file.exists():
        known = json.loads(read_text(json_file))
        if known.get("model_files") != found["model_files"]:
            raise ValueError(f"{json_file} holds tables of another model: name another file.")
        kept = {name: value for name, value in known.items() if name not in found}  # a note of a person, too
    found |= {"tables": {}} | kept
    for section in sections:
        made: dict[str, object] = {
            "seed": settings.seed,
            "size": subject.side,
            "pictures": count or COUNTS.get(section),
        }
        if section in ("solvers", "paths", "cache"):
            made["prompts"] = None if texts is None else hashlib.sha256("\n".join(texts).encode()).hexdigest()
        table = found["tables"].setdefault(section, {**made, "rows": []})
        if any(table.get(name, value) != value for name, value in made.items()):
            raise ValueError(f"{json_file} holds a table {section} of other settings: name another file.")
        skip = [row["name"] for row in table["rows"]]
        for row in study(subject, section, count=count, reference=reference, prompts=texts, skip=skip):
            say(f"{row['name']}: {row_text(row)}")
            table["rows"].append(row)
            write_json(json_file, found)
    return found
