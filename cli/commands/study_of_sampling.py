"""``mforce study sampling``: paths, solvers and steps compared on a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import report_errors
from .study_options import study_options, study_settings


@study_options
def sampling(
    only: Annotated[
        str,
        typer.Option(
            help="Tables, separated by commas: solvers, paths, cache, looks, i2d, follow, completion, ensemble."
        ),
    ] = "solvers,paths,cache,looks,i2d,follow,completion,ensemble",
    count: Annotated[
        int | None,
        typer.Option(help="Pictures a table. Default: 64; 96 for looks, 24 for follow, 128 for ensemble.", min=2),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Text file of prompts, one per line. Default: those of nano.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Keep the 400 steps of the reference in this .safetensors file, and those of looks beside it."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the tables to this file; others in it are kept.")
    ] = None,
    **shared: Any,
) -> None:
    """Compare paths, samplers and numbers of steps on a model: error against many steps, looks, depth, and cost."""
    with report_errors(shared["debug"]):
        from ..sampling_study import run_study

        run_study(
            study_settings("joint", shared), only.split(","),
            count=count, prompts=prompts, reference=reference, json_file=json_file,
        )  # fmt: skip
