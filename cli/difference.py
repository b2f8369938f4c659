"""``mforce difference``: what turns one model into another, as a LoRA."""

from __future__ import annotations

from pathlib import Path

from ..mforce_core.device import choose_device
from ..mforce_core.weights.difference import VALUES, Values, write_difference
from ..mforce_core.weights.parts import model_path
from .progress import progress_bar, say

_MEGABYTE = 1_000_000


def run_difference(
    base: str, model: str, out: Path, *, megabytes: float, values: str, device: str, overwrite: bool
) -> None:
    """Write the LoRA and say what it keeps.

    Raises:
        ValueError: see `write_difference`.
    """
    if megabytes <= 0:
        raise ValueError(f"--megabytes must be above 0, got {megabytes:g}")
    with progress_bar("Decomposing") as bar:
        kept = write_difference(
            model_path(base),
            model_path(model),
            out,
            size=int(megabytes * _MEGABYTE),
            values=_values(values),
            device=choose_device(device),
            overwrite=overwrite,
            progress=bar,
        )
    pairs = sorted(part.rank for part in kept.values() if part.rank)
    whole = sum(part.whole for part in kept.values())
    ranks = f" of rank {pairs[0]} to {pairs[-1]}" if pairs else ""
    say(f"{len(pairs)} low-rank pairs{ranks}, {whole} matrices whole; {out.stat().st_size / _MEGABYTE:.2f} MB.")
    say("Put it into ComfyUI's models/loras and load it onto the base with Load LoRA.")


def _values(text: str) -> Values:
    for known in VALUES:
        if text == known:
            return known
    raise ValueError(f"--to {text} is unknown: choose {' or '.join(VALUES)}")
