"""``mforce study``: a grid of training runs, and where its report is."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
import typer

from ..benchmarks.machine import describe
from ..mforce_core.model.config import ConfigError
from ..training.stop import Stopped, exit_code
from ..training.study import read_study, run_study


def run(config: Path, overrides: list[str], only: str) -> None:
    """Raises ValueError, OSError: see `read_study` and `run_study`; typer.Exit with 130 or 143 where it was stopped."""
    if find_spec("matplotlib") is None:
        raise ConfigError("a study draws a plot with matplotlib: pip install 'comfyui-modality-forcing[train]'")
    study = read_study(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        results = run_study(study, only=only, overrides=overrides, machine=describe(device))
    except Stopped as stopped:
        raise typer.Exit(exit_code(stopped.signal)) from None
    print(f"{len(results)} cells are finished; their report is in {study.out}")
