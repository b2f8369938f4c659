"""The ``mforce`` program: its commands are in :mod:`.commands`, what they do in the modules beside this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from ..version import __version__
from .commands import bench, data, evaluation, explore, export, models, pictures, studies, training, video, web

app = typer.Typer(
    name="mforce",
    help="Modality Forcing: an image and its depth from text, depth from an image, an image from depth.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "joint": pictures.joint,
    "i2d": pictures.i2d,
    "d2i": pictures.d2i,
    "video": video.video,
    "explore": explore.explore,
    "rerun": pictures.rerun,
    "demo": pictures.demo,
    "info": models.info,
    "convert": models.convert,
    "difference": models.difference,
    "train": training.train,
    "bench": bench.bench,
    "app": web.app,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(data.app)
app.add_typer(evaluation.app)
app.add_typer(export.app)
app.add_typer(studies.app)


def main() -> None:
    """Entry point of the ``mforce`` script."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mforce {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
