"""``mforce study video``: how steady the depth of clips is, how right, and what it costs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ...mforce_core.release import CFG
from ...mforce_core.settings import DEPTH_STEPS
from ..errors import report_errors
from .options import DepthSteps
from .study_options import study_options, study_settings


@study_options
def video(
    only: Annotated[str, typer.Option(help="Tables, separated by commas: cuts, clips, long.")] = "cuts,clips,long",
    clips: Annotated[int, typer.Option(help="Short clips, each of a room of its own.", min=2)] = 10,
    steps: DepthSteps = DEPTH_STEPS,
    **shared: Any,
) -> None:
    """Depth of rendered clips with a moving camera: flicker, error, drift of the scale, and cost of several ways."""
    with report_errors(shared["debug"]):
        from ..video_study import run_video_study

        settings = study_settings("i2d", shared, steps=steps, cfg=CFG["i2d"])
        run_video_study(settings, only.split(","), clips, shared["json_file"])
