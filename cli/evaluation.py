"""Run the evaluation of a small model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..evaluation.nano import evaluate_nano
from ..mforce_core.encoders.words import WORDS_FILE
from ..mforce_core.settings import Settings
from .generation import fit_to_model, prepare
from .json_file import check_folder, write_json
from .progress import progress_bar


def run_evaluation(
    settings: Settings, scenes: int, json_file: Path | None, given: Collection[str] = ()
) -> dict[str, Any]:
    """Metrics of `evaluate_nano`, also written to ``json_file``.

    Args:
        given: names of the settings that the person chose; a model of few steps decides the others.

    Raises:
        ValueError: a part of the model is missing, its text encoder is not one of words, or the file cannot be written.
    """
    check_folder(json_file)
    settings, parts = prepare(fit_to_model(settings, given))
    words = parts.text_encoder / WORDS_FILE if parts.text_encoder.is_dir() else parts.text_encoder
    if words.name != WORDS_FILE or not words.exists():
        raise ValueError(f"{parts.text_encoder} is no {WORDS_FILE}: the evaluation's captions are for small models.")
    with progress_bar("evaluating") as advance:
        metrics = evaluate_nano(
            parts.model,
            words,
            parts.vae,
            scenes=scenes,
            seed=settings.seed,
            steps=settings.steps,
            distilled=parts.header().config.distilled,
            device=settings.device,
            progress=advance,
        )
    write_json(json_file, metrics)
    return metrics
