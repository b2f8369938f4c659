"""The commands that study: grids of training runs, and paths through the noise levels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...mforce_core.release import STEPS
from ...mforce_core.settings import BUILT_IN, Settings
from ..errors import report_errors
from . import options, students, study_of_sampling, study_of_video, study_of_views, training
from .default_command import DefaultCommandGroup

app = typer.Typer(
    name="study",
    cls=DefaultCommandGroup,
    help="Train a grid of sizes, budgets and recipes (the default: mforce study scaling) or students of few steps "
    "(distillation), or study paths through the noise levels (trajectories, conditioning, sampling) and depth of clips "
    "(video), or views around the corner (views).",
    rich_markup_mode="rich",
)
app.command("grid")(training.study)
app.command("sampling")(study_of_sampling.sampling)
app.command("distillation")(students.distillation)
app.command("video")(study_of_video.video)
app.command("views")(study_of_views.views)

STUDY = "Study"

Pictures = Annotated[int, typer.Option("--pictures", help="For each value.", min=1, rich_help_panel=STUDY)]
Values = Annotated[
    str | None,
    typer.Option(
        help="Values of log2 alpha, separated by commas. Default: the figure's.",
        show_default=False,
        rich_help_panel=STUDY,
    ),
]
Judge = Annotated[
    str | None,
    typer.Option(
        metavar="FAMILY:ID",
        help="What sees depth in pictures: transformers:, moge: or marigold:. Default: the model's own image to depth.",
        show_default=False,
        rich_help_panel=STUDY,
    ),
]
JudgeKind = Annotated[str, typer.Option(help="What the judge predicts: depth or disparity.", rich_help_panel=STUDY)]
Align = Annotated[str, typer.Option(help="Alignment of the judged depth.", rich_help_panel=STUDY)]
Batch = Annotated[int, typer.Option(help="Pictures that are sampled together.", min=1, rich_help_panel=STUDY)]


@app.command()
def trajectories(
    model: options.Model = BUILT_IN,
    values: Values = None,
    pictures: Pictures = 64,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="File with one prompt per line. Default: captions of rendered scenes.",
            show_default=False,
            rich_help_panel=STUDY,
        ),
    ] = None,
    judge: Judge = None,
    judge_kind: JudgeKind = "depth",
    align: Align = "scale",
    steps: options.Steps = STEPS,
    seed: options.Seed = 1_000_000,
    size: options.Size = None,
    batch: Batch = 16,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    dtype: options.Dtype = "auto",
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    devices: options.Devices = "auto",
    ray: options.Ray = 0,
    ray_gpus: options.RayGpus = 0,
    debug: options.Debug = False,
) -> None:
    """Which stream first? Depth sampled with its picture against the depth that a judge sees in it (Fig. 7)."""
    _run(
        "trajectories", values, debug, pictures=pictures, prompts=prompts, judge=judge, judge_kind=judge_kind,
        alignment=align, batch=batch, output=output, overwrite=overwrite, devices=devices, ray=ray, ray_gpus=ray_gpus,
        model=model, steps=steps, seed=seed, size=size, text_encoder=text_encoder, vae=vae, dtype=dtype,
    )  # fmt: skip


@app.command()
def conditioning(
    model: options.Model = BUILT_IN,
    values: Values = None,
    pictures: Pictures = 64,
    judge: Judge = None,
    judge_kind: JudgeKind = "depth",
    align: Align = "scale",
    steps: options.Steps = STEPS,
    seed: options.Seed = 1_000_000,
    size: options.Size = None,
    batch: Batch = 16,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    dtype: options.Dtype = "auto",
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    devices: options.Devices = "auto",
    ray: options.Ray = 0,
    ray_gpus: options.RayGpus = 0,
    debug: options.Debug = False,
) -> None:
    """How strictly is given depth followed? Pictures made from depth that is given more and more loosely (Fig. 8)."""
    _run(
        "conditioning", values, debug, pictures=pictures, prompts=None, judge=judge, judge_kind=judge_kind,
        alignment=align, batch=batch, output=output, overwrite=overwrite, devices=devices, ray=ray, ray_gpus=ray_gpus,
        model=model, steps=steps, seed=seed, size=size, text_encoder=text_encoder, vae=vae, dtype=dtype,
    )  # fmt: skip


def _run(
    study: str,
    values: str | None,
    debug: bool,
    *,
    pictures: int,
    output: Path | None,
    devices: str,
    ray: int,
    ray_gpus: float,
    model: str,
    steps: int,
    seed: int,
    size: str | None,
    text_encoder: Path | None,
    vae: Path | None,
    dtype: str,
    **others,
) -> None:
    with report_errors(debug):
        from ...evaluation.studies import CONDITIONING, TRAJECTORIES
        from ...mforce_core.results.folder import default_output
        from ..path_study import run_path_study
        from ..spread import Workers

        places = options.parse_devices(devices)
        found = run_path_study(
            study,  # type: ignore[arg-type]
            Settings(
                "joint", "", steps=steps, seed=seed, size=options.parse_size(size), model=model, dtype=dtype,
                text_encoder=None if text_encoder is None else str(text_encoder), vae=None if vae is None else str(vae),
                device=places[0],
            ),
            _numbers(values) or (TRAJECTORIES if study == "trajectories" else CONDITIONING),
            pictures,
            output or default_output(study),
            workers=Workers(places, ray, ray_gpus),
            **others,
        )  # fmt: skip
        for fact in found["facts"]:
            print(f"{fact}.")
        for value, row in found["means"].items():
            print("log2 alpha {:>5}: AbsRel {:.4f} ({:.4f} to {:.4f})".format(value, *row["absrel"]))
        if found["failed"]:
            raise typer.Exit(1)


def _numbers(values: str | None) -> tuple[float | None, ...]:
    if values is None:
        return ()
    try:
        return tuple(None if value.strip() == "clean" else float(value) for value in values.split(","))
    except ValueError:
        raise ValueError(f"--values are numbers separated by commas, got {values!r}.") from None
