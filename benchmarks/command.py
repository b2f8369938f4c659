"""What ``mforce bench`` does: choose sizes and device, measure, keep the numbers as they come, print tables."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..mforce_core.device import choose_device
from .subjects import subject
from .suite import measure_machine, sections_of
from .tables import print_report

_DTYPES = {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32")}


def run_benchmarks(
    what: str,
    architecture: str | None,
    device: str,
    dtype: str,
    repeats: int | None,
    compiled: bool,
    json_file: Path | None,
    say: Callable[[str], None],
) -> None:
    """Measure, and print the report. The arguments are the command's options.

    Raises:
        ValueError: an option that cannot be, or a place that cannot be written.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"--dtype must be bfloat16, float16 or float32, got {dtype!r}.")
    sections_of(what)
    device = choose_device(device)
    chosen = subject(architecture or ("12b-v2" if device.startswith("cuda") else "231m"))
    if json_file is not None and not json_file.is_dir() and not json_file.absolute().parent.is_dir():
        raise ValueError(f"The folder of {json_file} does not exist: make it first.")
    report: Mapping[str, Any] = {}
    for report in measure_machine(
        what,
        chosen,
        torch.device(device),
        _DTYPES[dtype],
        repeats,
        compiled,
        lambda next_one: say(f"Measuring {next_one}..."),
    ):
        if json_file is not None:
            _write(report, json_file)
    print_report(report)


def _write(report: Mapping[str, Any], target: Path) -> None:
    if target.is_dir():
        name = re.sub(r"[^a-z0-9]+", "-", str(report["machine"]["device"]).lower()).strip("-")
        target = target / f"{name}.json"
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
