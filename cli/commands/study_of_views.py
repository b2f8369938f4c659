"""``mforce study views``: what is made around the corner, against scenes that render it exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ...mforce_core.settings import BUILT_IN, Settings
from ..errors import report_errors
from . import options


def views(
    scenes: Annotated[int, typer.Option(min=1, help="For one view to the right.")] = 16,
    walks: Annotated[int, typer.Option(min=0, help="Scenes that are walked through in eight steps.")] = 6,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the rows to this file.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of scenes and noise.")] = 1_000_000,
    model: options.Model = BUILT_IN,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    debug: options.Debug = False,
) -> None:
    """Fill what a moved camera sees, and compare picture and depth in the holes with the true ones."""
    with report_errors(debug):
        from ...evaluation.view_study import along_a_path, one_view
        from ..generation import load_pipeline, prepare
        from ..progress import say

        files = options.model_files(model, text_encoder, vae)
        settings = Settings("joint", "", seed=seed, device=device, dtype=dtype, **files)
        settings, parts = prepare(settings)
        pipeline = load_pipeline([settings], parts)
        tables: dict[str, object] = {"model_files": pipeline.model_files, "seed": seed}
        for name, rows, count in (("view", one_view, scenes), ("path", along_a_path, walks)):
            found: list[dict[str, object]] = []
            tables[name] = found
            for row in rows(pipeline, count, seed) if count else ():
                numbers = (f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, float))
                say(f"{row['name']}{' ' + str(row['step']) if 'step' in row else ''}: {', '.join(numbers)}")
                found.append(row)
                if json_file is not None:
                    json_file.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
