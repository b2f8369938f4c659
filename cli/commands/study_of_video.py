"""``mforce study video``: how steady the depth of clips is, how right, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...mforce_core.release import CFG
from ...mforce_core.settings import BUILT_IN, DEPTH_STEPS, Settings
from ..errors import report_errors
from . import options


def video(
    only: Annotated[str, typer.Option(help="Tables, separated by commas: cuts, clips, long.")] = "cuts,clips,long",
    clips: Annotated[int, typer.Option(help="Short clips, each of a room of its own.", min=2)] = 10,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the tables to this file.", show_default=False)
    ] = None,
    steps: options.DepthSteps = DEPTH_STEPS,
    seed: Annotated[int, typer.Option(help="Of rooms, ways and noise.")] = 1_000_000,
    size: options.Size = None,
    model: options.Model = BUILT_IN,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    debug: options.Debug = False,
) -> None:
    """Depth of rendered clips with a moving camera: flicker, error, drift of the scale, and cost of several ways."""
    with report_errors(debug):
        from ..video_study import run_video_study

        settings = Settings(
            "i2d", "", seed=seed, steps=steps, cfg=CFG["i2d"], size=options.parse_size(size),
            device=device, dtype=dtype, **options.model_files(model, text_encoder, vae),
        )  # fmt: skip
        run_video_study(settings, only.split(","), clips, json_file)
