"""``mforce difference``: what turns one model into another, as a LoRA."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import cycle, islice
from math import prod
from pathlib import Path

import torch

from ..evaluation.calibration_prompts import calibration_prompts
from ..mforce_core.calibration.samples import calibration_samples
from ..mforce_core.calibration.statistics import Calibration
from ..mforce_core.conversion.difference import VALUES, Metrics, Values, write_difference
from ..mforce_core.device import choose_device
from ..mforce_core.encoders.text import encode_prompts
from ..mforce_core.parts import find_text_encoder, model_path, trained_size
from ..mforce_core.release import PATCH_SIZE
from ..mforce_core.weights.checkpoint import load_model
from ..mforce_core.weights.header import read_header
from .progress import progress_bars, say
from .prompts_file import read_prompts

_MEGABYTE = 1_000_000
#: Models up to this size are calibrated in float32.
_SMALL_PARAMETERS = 10**9


def run_difference(
    base: str, model: str, out: Path, *, megabytes: float, values: str, device: str, overwrite: bool,
    calibrate: int, prompts: Path | None, text_encoder: Path | None,
) -> None:  # fmt: skip
    """Write the LoRA and say what it keeps.

    Args:
        calibrate: prompts that ``model`` is run on; 0: none.
        prompts: file of them, which are taken again with other seeds where they are fewer.
        text_encoder: None: the base's.

    Raises:
        ValueError: see `write_difference`.
    """
    if megabytes <= 0:
        raise ValueError(f"--megabytes must be above 0, got {megabytes:g}")
    if not calibrate and (prompts or text_encoder):
        raise ValueError("--prompts and --text-encoder are for --calibrate: give it, too")
    chosen, device = _values(values), choose_device(device)
    texts = read_prompts(prompts) if prompts else calibration_prompts(calibrate)
    texts = list(islice(cycle(texts), calibrate))
    with progress_bars("Running the model", "Decomposing") if calibrate else progress_bars("Decomposing") as bars:
        metrics = None
        if calibrate:
            words = find_text_encoder(model_path(base), text_encoder)
            metrics = _metrics(model_path(model), words, texts, device, bars[0])
        kept = write_difference(
            model_path(base),
            model_path(model),
            out,
            size=int(megabytes * _MEGABYTE),
            values=chosen,
            device=device,
            overwrite=overwrite,
            progress=bars[-1],
            metrics=metrics,
        )
    pairs = sorted(part.rank for part in kept.values() if part.rank)
    whole = sum(part.whole for part in kept.values())
    ranks = f" of rank {pairs[0]} to {pairs[-1]}" if pairs else ""
    say(f"{len(pairs)} low-rank pairs{ranks}, {whole} matrices whole; {out.stat().st_size / _MEGABYTE:.2f} MB.")
    say("Put it into ComfyUI's models/loras and load it onto the base with Load LoRA.")


def _metrics(
    path: Path, text_encoder: Path, prompts: list[str], device: str, progress: Callable[[int, int], None]
) -> Metrics:
    """Metrics of a model's layers on its own pictures of the prompts; it is run when one is asked for."""
    header = read_header(path)
    architecture, distilled = header.architecture, header.config.distilled
    if not architecture.has_depth:
        raise ValueError(f"{path} is a text-to-image base without a depth stream, which cannot be calibrated: leave "
                         "--calibrate out")  # fmt: skip

    @cache
    def calibration() -> Calibration:
        features = encode_prompts(text_encoder, sorted({*prompts, ""}), architecture.context_in_dim, device, say)
        small = sum(map(prod, header.shapes.values())) <= _SMALL_PARAMETERS
        model = load_model(path, device=device, dtype=torch.float32 if small else torch.bfloat16)
        width, height = trained_size(path, text_encoder)
        grid = height // PATCH_SIZE, width // PATCH_SIZE
        text = torch.cat([features[prompt] for prompt in prompts])
        samples = list(calibration_samples(model, text, features[""], grid, distilled, progress=progress))
        return Calibration(model, samples, grid, progress=progress)

    return lambda name: calibration().metric(name)


def _values(text: str) -> Values:
    for known in VALUES:
        if text == known:
            return known
    raise ValueError(f"--to {text} is unknown: choose {' or '.join(VALUES)}")
