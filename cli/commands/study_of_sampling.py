"""``mforce study sampling``: paths, solvers and steps compared on a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...mforce_core.settings import BUILT_IN, Settings
from ..errors import report_errors
from . import options


def sampling(
    only: Annotated[
        str, typer.Option(help="Tables, separated by commas: solvers, paths, cache, i2d, follow, ensemble.")
    ] = "solvers,paths,cache,i2d,follow,ensemble",
    count: Annotated[
        int | None,
        typer.Option(help="Pictures a table. Default: 64; 24 for follow, 128 for ensemble.", min=2, show_default=False),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Text file of prompts, one per line. Default: those of nano.", show_default=False),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Keep the 400 steps of the reference in this .safetensors file.", show_default=False),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write the tables to this file; others in it are kept.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of scenes and noise.")] = 1_000_000,
    size: options.Size = None,
    model: options.Model = BUILT_IN,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    debug: options.Debug = False,
) -> None:
    """Compare paths, samplers and numbers of steps on a model: error against many steps, looks, depth, and cost."""
    with report_errors(debug):
        from ..sampling import run_study

        settings = Settings(
            "joint", "", seed=seed, size=options.parse_size(size), device=device, dtype=dtype,
            **options.model_files(model, text_encoder, vae),
        )  # fmt: skip
        run_study(settings, only.split(","), count=count, prompts=prompts, reference=reference, json_file=json_file)
