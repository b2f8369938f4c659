"""``mforce bench``: kernels, a denoise step, a rollout and a training step beside their peers on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import report_errors
from . import options


def bench(
    what: Annotated[str, typer.Argument(help="kernels, attention, step, rollout, training or all.")] = "all",
    architecture: Annotated[
        str | None,
        typer.Option(
            help="Sizes of the model, its weights are random: nano, 231m, klein-4b or 12b-v2. Default: 12b-v2 on a "
            "GPU, 231m elsewhere."
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    repeats: Annotated[
        int | None, typer.Option(help="Rounds of every comparison. Default: 30 on a GPU, 10 elsewhere.", min=1)
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Measure under torch.compile too; compiling takes minutes.")
    ] = True,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write the numbers to this file, or, named by the device, to this folder."),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Measure this machine: kernels, a denoise step, a rollout and a training step, beside their peers."""
    with report_errors(debug):
        from ...benchmarks.command import run_benchmarks
        from ..progress import say

        run_benchmarks(what, architecture, device, dtype, repeats, compiled, json_file, say)
