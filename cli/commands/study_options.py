"""Options of the commands that measure a model on scenes of their own, and the settings that they make."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ...mforce_core.release import Mode
from ...mforce_core.settings import BUILT_IN, Settings
from . import options
from .shared_options import shared_options
from .values import model_files, parse_size

JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")]
SceneSeed = Annotated[int, typer.Option(help="Of scenes and noise; training uses small ones.")]


class OfStudies:
    """Name, type and default of each, in the order of the help."""

    json_file: JsonFile = None
    seed: SceneSeed = 1_000_000
    size: options.Size = None
    model: options.Model = BUILT_IN
    text_encoder: options.TextEncoder = None
    vae: options.Vae = None
    device: options.Device = "auto"
    dtype: options.Dtype = "auto"
    debug: options.Debug = False


#: `shared_options` of these.
study_options = partial(shared_options, options_of=OfStudies)


def study_settings(mode: Mode, shared: Mapping[str, Any], **others: Any) -> Settings:
    """The settings that these options ask for, with others of the command."""
    return Settings(
        mode,
        "",
        seed=shared["seed"],
        size=parse_size(shared.get("size")),
        device=shared["device"],
        dtype=shared["dtype"],
        **model_files(shared["model"], shared["text_encoder"], shared["vae"]),
        **others,
    )
