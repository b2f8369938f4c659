"""Run the evaluation of a small model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..evaluation.nano import evaluate_nano
from .pipeline import find_parts, resolve
from .progress import progress_bar
from .settings import Settings


def run_evaluation(
    model: str, scenes: int, seed: int, steps: int, device: str, json_file: Path | None
) -> dict[str, Any]:
    """Metrics of `evaluate_nano`, also written to ``json_file``.

    Raises:
        ValueError: the model is not a folder with a word-level text encoder, or the file cannot be written.
    """
    settings = Settings("joint", "", seed=seed, steps=steps, model=model, device=device)
    parts = find_parts(settings)
    settings = resolve(settings, parts)
    if not (parts.model / "text_encoder.safetensors").exists():
        raise ValueError(f"{parts.model} is not a small model folder: the evaluation's captions are for those.")
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ValueError(f"The folder of {json_file} does not exist: make it first.")
    with progress_bar("evaluating") as advance:
        metrics = evaluate_nano(
            parts.model, scenes=scenes, seed=seed, steps=steps, device=settings.device, progress=advance
        )
    if json_file is not None:
        json_file.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics
