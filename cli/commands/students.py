"""The commands about models of few steps: eval distilled, study distillation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ...mforce_core.release import STEPS
from ...mforce_core.settings import BUILT_IN
from ..errors import LIGHTER_TRAINING, report_errors
from . import options
from .study_options import study_options, study_settings
from .values import whole_numbers


@partial(study_options, without=("size", "model"))
def distilled(
    students: Annotated[list[Path], typer.Argument(metavar="STUDENT...", help="Folders or files of distilled models.")],
    teacher: Annotated[str, typer.Option(help="The model that they were made from.")] = BUILT_IN,
    steps: Annotated[str, typer.Option(help="Numbers of steps of the students, separated by commas.")] = "1,2,4,8",
    teacher_steps: Annotated[int, typer.Option(help="Steps of the teacher, with guidance.", min=1)] = STEPS,
    prompts: Annotated[int, typer.Option(help="Prompts of one object.", min=2)] = 96,
    scenes: Annotated[int, typer.Option(help="Rendered scenes, with exact depth.", min=2)] = 64,
    varied: Annotated[int, typer.Option(help="Prompts whose pictures from several seeds are compared.", min=2)] = 8,
    seeds: Annotated[int, typer.Option(help="Pictures of each of them.", min=2)] = 4,
    reference: Annotated[
        Path | None, typer.Option(help="Keep what the teacher made in this .safetensors file.")
    ] = None,
    **shared: Any,
) -> None:
    """Measure models of few steps against their teacher: the same prompts, scenes and seeds."""
    with report_errors(shared["debug"]):
        from ...evaluation.distillation import Counts
        from ..distillation import evaluate_students, table

        rows = evaluate_students(
            study_settings("joint", shared | {"model": teacher}),
            _named(students),
            whole_numbers("--steps", steps, 1),
            Counts(prompts, scenes, min(varied, scenes), seeds),
            teacher_steps=teacher_steps, reference=reference, json_file=shared["json_file"],
        )  # fmt: skip
        print(table(rows))


def _named(students: list[Path]) -> dict[str, Path]:
    """Students by the names of their folders or files; those of a run's ``model`` by that of the run.

    Raises:
        ValueError: two of one name.
    """
    named: dict[str, Path] = {}
    for student in students:
        place = student.absolute()
        place = place.parent if place.name == "model.safetensors" else place
        name = place.parent.name if place.name == "model" else place.name
        if name in named:
            raise ValueError(f"{named[name]} and {student} would both be called {name}: rename one of them.")
        named[name] = student
    return named


def distillation(
    config: Annotated[Path, typer.Argument(help="TOML file, or objectives.")] = Path("objectives"),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="For every student.")
    ] = None,
    only: Annotated[str, typer.Option(metavar="PATTERN", help="Variants to run, as in consistency*.")] = "*",
    device: options.Device = "auto",
    debug: options.Debug = False,
) -> None:
    """Distill a model in several ways, or resume that, and compare the students with their teacher."""
    with report_errors(debug, LIGHTER_TRAINING):
        from ...training.stop import Stopped, exit_code
        from ..distillation import run_distillation_study

        try:
            print(run_distillation_study(config, overrides or [], only, device))
        except Stopped as stopped:
            raise typer.Exit(exit_code(stopped.signal)) from None
