"""The commands that train: train, study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import LIGHTER_TRAINING, report_errors
from . import options


def train(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file, or a preset: nano-t2i, nano-mf, klein-4b, ...")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a value of the file.")
    ] = None,
    processes: Annotated[int, typer.Option(help="GPUs of this machine that share the run.", min=1)] = 1,
    plan: Annotated[bool, typer.Option("--plan", help="Only estimate memory and time.")] = False,
    changed: Annotated[
        bool, typer.Option("--changed", help="Resume even though seed, data or length differ from the run's.")
    ] = False,
    keys: Annotated[bool, typer.Option("--keys", help="Print every configuration key, as a page of Markdown.")] = False,
    init: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a commented configuration to start from.")
    ] = None,
    preset: Annotated[str, typer.Option(help="What --init copies.")] = "nano-mf",
    debug: options.Debug = False,
) -> None:
    """Train a stage of a model, or resume it."""
    with report_errors(debug, LIGHTER_TRAINING):
        from ...training.keys import reference
        from ..train import run_training, write_template

        if keys:
            print(reference())
            return
        if init is not None:
            write_template(init, preset)
            return
        if config is None:
            raise ValueError("name a configuration: a TOML file, or a preset such as nano-t2i")
        code = run_training(config, overrides or [], processes, plan_only=plan, changed=changed)
        if code:
            raise typer.Exit(code)


def study(
    config: Annotated[Path, typer.Argument(help="TOML file, or scaling, depth-start, recipe, sparse-depth.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="For both stages of every cell.")
    ] = None,
    only: Annotated[str, typer.Option(metavar="PATTERN", help="Cells to run, as in w64-*.")] = "*",
    debug: options.Debug = False,
) -> None:
    """Train a grid of sizes, budgets and recipes, or resume it, and compare their held-out errors."""
    with report_errors(debug, LIGHTER_TRAINING):
        from ..study import run

        run(config, overrides or [], only)
