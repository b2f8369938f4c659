"""``mforce study views``: what is made around the corner, against scenes that render it exactly."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from ..errors import report_errors
from .study_options import study_options, study_settings


@partial(study_options, without=("size",))  # scenes are rendered at one size
def views(
    scenes: Annotated[int, typer.Option(min=1, help="For one view to the right.")] = 16,
    walks: Annotated[int, typer.Option(min=0, help="Scenes that are walked through in eight steps.")] = 6,
    **shared: Any,
) -> None:
    """Fill what a moved camera sees, and compare picture and depth in the holes with the true ones."""
    with report_errors(shared["debug"]):
        from ...evaluation.view_study import along_a_path, one_view
        from ..generation import load_pipeline, prepare
        from ..json_file import check_folder, write_json
        from ..progress import say
        from ..tables import row_text

        seed, json_file = shared["seed"], shared["json_file"]
        check_folder(json_file)
        settings, parts = prepare(study_settings("joint", shared))
        pipeline = load_pipeline([settings], parts)
        tables: dict[str, Any] = {"model_files": pipeline.model_files, "seed": seed}
        for name, rows, count in (("view", one_view, scenes), ("path", along_a_path, walks)):
            found: list[dict[str, object]] = []
            tables[name] = found
            for row in rows(pipeline, count, seed) if count else ():
                say(f"{row['name']}{' ' + str(row['step']) if 'step' in row else ''}: {row_text(row)}")
                found.append(row)
                write_json(json_file, tables)
