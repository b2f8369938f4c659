"""The commands that study: grids of training runs, and paths through the noise levels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ...mforce_core.release import STEPS
from ...mforce_core.settings import BUILT_IN, Settings
from ..errors import report_errors
from . import options, students, study_of_full_size, study_of_sampling, study_of_video, study_of_views, training
from .default_command import DefaultCommandGroup
from .shared_options import shared_options
from .values import depth_or_disparity, model_files, parse_devices, parse_size

app = typer.Typer(
    name="study",
    cls=DefaultCommandGroup,
    help="Train a grid of sizes, budgets and recipes (grid, which may be left out: mforce study scaling) or students "
    "of few steps (distillation), or study paths through the noise levels (trajectories, conditioning, sampling) and "
    "depth of clips (video), views around the corner (views), or depth at full size (full-size).",
    rich_markup_mode="rich",
)
app.command("grid")(training.study)
app.command("sampling")(study_of_sampling.sampling)
app.command("distillation")(students.distillation)
app.command("video")(study_of_video.video)
app.command("views")(study_of_views.views)
app.command("full-size")(study_of_full_size.full_size)

_study = partial(typer.Option, rich_help_panel="Study")

Pictures = Annotated[int, _study("--pictures", help="For each value.", min=1)]
Values = Annotated[str | None, _study(help="Values of log2 alpha, separated by commas. Default: the figure's.")]
Judge = Annotated[
    str | None,
    _study(
        metavar="FAMILY:ID",
        help="What sees depth in pictures: transformers:, moge: or marigold:. Default: the model's own image to depth.",
    ),
]
JudgeKind = Annotated[str, _study(help="What the judge predicts: depth or disparity.")]
Align = Annotated[str, _study(help="Alignment of the judged depth.")]
Batch = Annotated[int, _study(help="Pictures that are sampled together.", min=1)]


class Shared:
    """What both studies of paths take."""

    model: options.Model = BUILT_IN
    values: Values = None
    pictures: Pictures = 64
    judge: Judge = None
    judge_kind: JudgeKind = "depth"
    align: Align = "scale"
    steps: options.Steps = STEPS
    seed: options.Seed = 1_000_000
    size: options.Size = None
    batch: Batch = 16
    text_encoder: options.TextEncoder = None
    vae: options.Vae = None
    dtype: options.Dtype = "auto"
    output: options.Output = None
    overwrite: options.Overwrite = False
    devices: options.Devices = "auto"
    ray: options.Ray = 0
    ray_gpus: options.RayGpus = 0
    debug: options.Debug = False


_study_options = partial(shared_options, options_of=Shared)


@app.command()
@_study_options
def trajectories(
    prompts: Annotated[
        Path | None, _study(help="File with one prompt per line. Default: captions of rendered scenes.")
    ] = None,
    **shared: Any,
) -> None:
    """Which stream first? Depth sampled with its picture against the depth that a judge sees in it (Fig. 7)."""
    _run("trajectories", prompts=prompts, **shared)


@app.command()
@_study_options
def conditioning(**shared: Any) -> None:
    """How strictly is given depth followed? Pictures made from depth that is given more and more loosely (Fig. 8)."""
    _run("conditioning", prompts=None, **shared)


def _run(
    study: str,
    *,
    values: str | None,
    debug: bool,
    pictures: int,
    align: str,
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
    judge_kind: str,
    **others: Any,
) -> None:
    del others["given"]  # what was typed and what is a default makes no difference here
    with report_errors(debug):
        from ...evaluation.studies import CONDITIONING, TRAJECTORIES
        from ...mforce_core.results.folder import default_output
        from ..path_study import run_path_study
        from ..spread import Workers

        places = parse_devices(devices)
        found = run_path_study(
            study,  # type: ignore[arg-type]
            Settings(
                "joint", "", steps=steps, seed=seed, size=parse_size(size), dtype=dtype,
                device=places[0], **model_files(model, text_encoder, vae),
            ),
            _numbers(values) or (TRAJECTORIES if study == "trajectories" else CONDITIONING),
            pictures,
            output or default_output(study),
            judge_kind=depth_or_disparity("--judge-kind", judge_kind),
            alignment=align,
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
