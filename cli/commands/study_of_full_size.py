"""``mforce study full-size``: depth at full size against enlarged depth."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import report_errors
from .study_options import study_options, study_settings
from .values import whole_numbers


@study_options
def full_size(
    factors: Annotated[
        str, typer.Option(help="How many times larger pictures are than what the model works at, on a side.")
    ] = "2,4",
    count: Annotated[int, typer.Option(help="Scenes for each factor.", min=2)] = 32,
    sweep: Annotated[bool, typer.Option("--sweep", help="Also compare noise levels that tiles start at.")] = False,
    pairs: Annotated[
        bool,
        typer.Option("--pairs", help="Instead of depth of scenes, sampled pictures with their depth, both enlarged."),
    ] = False,
    **shared: Any,
) -> None:
    """Compare depth that is refined in tiles with enlarged depth, on rendered scenes: edges, all pixels, seams."""
    with report_errors(shared["debug"]):
        from ..full_size_study import run_study

        if sweep and pairs:
            raise ValueError("--sweep compares strengths of depth alone: leave it out, or --pairs.")
        settings = study_settings("joint", shared)
        run_study(
            settings, whole_numbers("--factors", factors, 2), count, shared["json_file"], sweep=sweep, pairs=pairs
        )
