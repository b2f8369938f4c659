"""Prompts that a model is calibrated on: captions of scenes that no evaluation is made of."""

from __future__ import annotations

from ..scenes import captions, sample_layouts

_SEED = 3_000_000


def calibration_prompts(count: int) -> list[str]:
    """So many captions."""
    return captions(sample_layouts(count, _SEED))
