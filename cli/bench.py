"""``mforce bench``: kernels, a denoise step, a rollout and a training step beside their peers on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .errors import report_errors

Report = Mapping[str, Any]


def bench(
    what: Annotated[str, typer.Argument(help="kernels, attention, step, rollout, training or all.")] = "all",
    architecture: Annotated[
        str | None,
        typer.Option(
            help="Sizes of the model, its weights are random: nano, 231m, klein-4b or 12b-v2. Default: 12b-v2 on a "
            "GPU, 231m elsewhere.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    repeats: Annotated[
        int | None,
        typer.Option(help="Rounds of every comparison. Default: 30 on a GPU, 10 elsewhere.", min=1, show_default=False),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Measure under torch.compile too; compiling takes minutes.")
    ] = True,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Write the numbers to this file, or, named by the device, to this folder.",
            show_default=False,
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Measure this machine: kernels, a denoise step, a rollout and a training step, beside their peers."""
    with report_errors(debug):
        import torch

        from ..benchmarks.subjects import subject
        from ..benchmarks.suite import measure, sections_of
        from ..mforce_core.device import choose_device
        from .bench_tables import print_report
        from .progress import say

        if dtype not in ("bfloat16", "float16", "float32"):
            raise ValueError(f"--dtype must be bfloat16, float16 or float32, got {dtype!r}.")
        sections_of(what)
        device = choose_device(device)
        chosen = subject(architecture or ("12b-v2" if device.startswith("cuda") else "231m"))
        _check_writable(json_file)
        reports = measure(
            what,
            chosen,
            torch.device(device),
            getattr(torch, dtype),
            repeats,
            compiled,
            lambda next_one: say(f"Measuring {next_one}..."),
        )
        report: Report = {}
        for report in reports:
            if json_file is not None:
                _write(report, json_file)
        print_report(report)


def _check_writable(json_file: Path | None) -> None:
    if json_file is not None and not json_file.is_dir() and not json_file.absolute().parent.is_dir():
        raise ValueError(f"The folder of {json_file} does not exist: make it first.")


def _write(report: Report, target: Path) -> None:
    if target.is_dir():
        name = re.sub(r"[^a-z0-9]+", "-", str(report["machine"]["device"]).lower()).strip("-")
        target = target / f"{name}.json"
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
