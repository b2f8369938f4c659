"""``mforce study full-size``: depth at full size against enlarged depth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...mforce_core.settings import BUILT_IN, Settings
from ..errors import report_errors
from . import options


def full_size(
    factors: Annotated[
        str, typer.Option(help="How many times larger pictures are than what the model works at, on a side.")
    ] = "2,4",
    count: Annotated[int, typer.Option(help="Scenes for each factor.", min=2)] = 32,
    sweep: Annotated[bool, typer.Option("--sweep", help="Also compare noise levels that tiles start at.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the rows to this file.", show_default=False)
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
    """Compare depth that is refined in tiles with enlarged depth, on rendered scenes: edges, all pixels, seams."""
    with report_errors(debug):
        from ..full_size import run_study

        settings = Settings(
            "joint", "", seed=seed, size=options.parse_size(size), device=device, dtype=dtype,
            **options.model_files(model, text_encoder, vae),
        )  # fmt: skip
        run_study(settings, options.whole_numbers("--factors", factors, 2), count, json_file, sweep=sweep)
