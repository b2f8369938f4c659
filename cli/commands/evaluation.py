"""The commands that measure: eval scenes, eval depth, eval d2i."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ...mforce_core.release import CFG, STEPS
from ...mforce_core.settings import BUILT_IN, Settings
from ..errors import report_errors
from . import options, students
from .default_command import DefaultCommandGroup
from .study_options import JsonFile, SceneSeed
from .values import depth_or_disparity, model_files, parse_devices, parse_size

app = typer.Typer(
    name="eval",
    cls=DefaultCommandGroup,
    help="Measure a model: its depth on benchmarks, its pictures, or a small model on held-out scenes (the default).",
    rich_markup_mode="rich",
)

_data = partial(typer.Option, rich_help_panel="Data")
_prediction = partial(typer.Option, rich_help_panel="Prediction")
_protocol = partial(typer.Option, rich_help_panel="Protocol")

Ensemble = Annotated[
    int, _prediction(help="Maps per picture, from noise of their own, that become one by Marigold's ensemble.", min=1)
]
EnsembleMethod = Annotated[
    str,
    _prediction(
        help="marigold: scale and shift of each map, then the median in 0..1, for affine alignments only; "
        "median: scale only, so that every alignment is possible."
    ),
]
Processes = Annotated[
    int, typer.Option(help="Processes for each device; for saved predictions on a CPU.", min=1, rich_help_panel="Run")
]
First = Annotated[int | None, _data(help="Only so many pictures from the beginning.", min=1)]


@app.command()
def scenes(
    model: options.Model = BUILT_IN,
    scenes: Annotated[
        int, typer.Option(help="Held-out scenes, and half as many lone spheres; 128 prompts are added to any.", min=1)
    ] = 256,
    steps: options.StepsOfModel = None,
    seed: SceneSeed = 1_000_000,
    json_file: JsonFile = None,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    device: options.Device = "auto",
    debug: options.Debug = False,
) -> None:
    """Measure a small model on held-out scenes: all three tasks, and how its pictures look."""
    with report_errors(debug):
        from ..evaluation import run_evaluation
        from ..tables import print_metrics

        files = model_files(model, text_encoder, vae)
        settings = Settings("joint", "", seed=seed, steps=steps or STEPS, device=device, **files)
        metrics = run_evaluation(settings, scenes, json_file, () if steps is None else ("steps",))
        print_metrics(metrics)


@app.command()
def depth(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="nyuv2, kitti, eth3d, scannet, diode, ibims1, sintel, sunrgbd, ..., scenes (rendered), files (yours).",
        ),
    ],
    data: Annotated[Path | None, _data(help="Folder or uncompressed tar of the set.")] = None,
    listing: Annotated[Path | None, _data("--list", help="Marigold's list of the set.")] = None,
    layout: Annotated[str, _data(help="moge, marigold, or auto: MoGe's where there is an index.")] = "auto",
    region: Annotated[str, _data(help="Pixels of KITTI that count: eigen, garg or none.")] = "eigen",
    scene_count: Annotated[int, _data("--scenes", help="How many rendered scenes.", min=1)] = 64,
    center_crop: Annotated[
        int | None,
        _data(
            help="Score the largest square in the middle of pictures at this size: 256 in the paper's scaling study.",
            min=16,
        ),
    ] = None,
    first: First = None,
    model: options.Model = BUILT_IN,
    predictions: Annotated[
        Path | None,
        _prediction(help="Score saved maps instead of a model's: npy, npz, exr, pfm, tiff, 16-bit png, MoGe's png."),
    ] = None,
    peer: Annotated[
        str | None,
        _prediction(
            metavar="FAMILY:ID",
            help="Score another project's model where it is installed: transformers:, moge: or marigold:.",
        ),
    ] = None,
    kind: Annotated[str, _prediction(help="What saved maps or a peer hold: depth or disparity.")] = "depth",
    ensemble: Ensemble = 1,
    ensemble_method: EnsembleMethod = "marigold",
    protocol: Annotated[str | None, _protocol(help="moge or marigold. Default: that of the layout.")] = None,
    align: Annotated[
        str | None,
        _protocol(
            help="Alignments instead of the protocol's, separated by commas: none, median, scale, affine-depth, "
            "affine-disparity, least-square, least-square-disparity."
        ),
    ] = None,
    normals: Annotated[
        bool, _protocol("--normals", help="Also errors of surface normals, where the camera is known.")
    ] = False,
    steps: options.StepsOfModel = None,
    seed: options.Seed = 0,
    size: options.Size = None,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    dtype: options.Dtype = "auto",
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    devices: options.Devices = "auto",
    processes: Processes = 1,
    ray: options.Ray = 0,
    ray_gpus: options.RayGpus = 0,
    debug: options.Debug = False,
) -> None:
    """Score depth on a benchmark, by MoGe's or Marigold's protocol, of a model or of saved maps."""
    with report_errors(debug):
        from ...evaluation.depth.datasets import DataSpec
        from ...mforce_core.results.folder import default_output
        from .. import own_files
        from ..depth_evaluation import evaluate_depth, predictor_from
        from ..generation import fit_to_model, prepare
        from ..spread import Workers

        if layout not in ("auto", "moge", "marigold"):
            raise ValueError(f"--layout is auto, moge or marigold, not {layout}.")
        places = parse_devices(devices) * processes
        found = None
        if predictions is None and peer is None:
            settings = Settings(
                "i2d", "", steps=steps or STEPS, cfg=CFG["i2d"], seed=seed, size=parse_size(size), device=places[0],
                dtype=dtype, **model_files(model, text_encoder, vae),
            )  # fmt: skip
            found = prepare(fit_to_model(settings, () if steps is None else ("steps",)))
        metrics = evaluate_depth(
            DataSpec(
                dataset, None if data is None else data.absolute(), layout,  # type: ignore[arg-type]
                None if listing is None else listing.absolute(), region, scene_count, crop=center_crop,
                own=own_files.OwnFiles if dataset == own_files.KEY else None,
            ),
            predictor_from(found, predictions=predictions, peer=peer, kind=depth_or_disparity("--kind", kind),
                members=ensemble, seed=seed, method=ensemble_method),
            protocol,
            [name.strip() for name in align.split(",")] if align else [],
            output or default_output(f"eval-{dataset}"),
            normals=normals,
            overwrite=overwrite,
            workers=Workers(places, ray, ray_gpus),
            first=first,
        )  # fmt: skip
        _print(metrics)


@app.command()
def d2i(
    listing: Annotated[
        Path | None,
        typer.Argument(
            metavar="LIST",
            help="One line per picture: path, tab, caption. Without it: rendered scenes, which have exact depth.",
        ),
    ] = None,
    data: Annotated[Path | None, _data(help="Folder of the pictures. Default: the list's.")] = None,
    scene_count: Annotated[int, _data("--scenes", help="How many rendered scenes.", min=1)] = 64,
    first: First = None,
    model: options.Model = BUILT_IN,
    peer: Annotated[
        str | None,
        _prediction(
            "--estimator",
            metavar="FAMILY:ID",
            help="What sees depth in pictures: transformers:, moge: or marigold:. "
            "Default: the model's own image to depth.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        _prediction(
            help="Saved maps instead of an estimator, in its folders real and made, under the names of the pictures "
            "that the run writes into folders of these names. The run says when they are needed."
        ),
    ] = None,
    kind: Annotated[str, _prediction(help="What the estimator predicts: depth or disparity.")] = "depth",
    far_to_near: Annotated[
        float, _prediction(help="Of an estimator of disparity: how many times farther its least is than its most.")
    ] = 10.0,
    align: Annotated[str, _protocol(help="Alignment of the depth seen in made pictures.")] = "scale",
    fid: Annotated[
        str | None,
        _protocol(help="FID and KID: clean, legacy_pytorch, legacy_tensorflow (clean-fid) or torch-fidelity."),
    ] = None,
    clip: Annotated[str | None, _protocol(metavar="ID", help="CLIP score by this model of transformers.")] = None,
    steps: options.StepsOfModel = None,
    cfg: options.Cfg = None,
    seed: options.Seed = 0,
    size: options.Size = None,
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
    """Make pictures from the depth of real ones: FID, KID, CLIP score, and whether they have that depth."""
    with report_errors(debug):
        from ...evaluation.depth.predictors import FromFiles, FromModel, FromPeer, PredictorSpec
        from ...evaluation.images.maker import ImageJob, PairSpec
        from ...mforce_core.results.folder import default_output
        from ..generation import fit_to_model, prepare
        from ..image_evaluation import evaluate_images
        from ..spread import Workers

        holds = depth_or_disparity("--kind", kind)
        if predictions is not None and peer is not None:
            raise ValueError("--predictions and --estimator exclude each other.")
        places = parse_devices(devices)
        given = [name for name, value in (("steps", steps), ("cfg", cfg)) if value is not None]
        settings = Settings(
            "d2i", "", steps=steps or STEPS, cfg=CFG["d2i"] if cfg is None else cfg, seed=seed, dtype=dtype,
            size=parse_size(size), device=places[0], **model_files(model, text_encoder, vae),
        )  # fmt: skip
        settings, parts = prepare(fit_to_model(settings, given))
        own = fit_to_model(replace(settings, mode="i2d", cfg=CFG["i2d"]), given)
        estimator: PredictorSpec = FromModel(own, parts)
        if peer is not None:
            estimator = FromPeer(peer, holds)
        if predictions is not None:
            estimator = FromFiles(predictions.absolute(), holds)
        pairs = PairSpec(
            None if listing is None else listing.absolute(), None if data is None else data.absolute(), scene_count
        )
        job = ImageJob(
            pairs, settings, parts, estimator, align, far_to_near, (output or default_output("eval-d2i")).absolute()
        )
        metrics = evaluate_images(
            job, first=first, fid=fid, clip=clip, overwrite=overwrite, workers=Workers(places, ray, ray_gpus)
        )
        _print(metrics)


def _print(metrics: Mapping[str, Any]) -> None:
    """Exits with 1 where something failed."""
    from ..tables import print_metrics

    for fact in metrics["facts"]:
        print(f"{fact}.")
    print_metrics({name: value for name, value in metrics.items() if name not in ("facts", "failed")})
    if metrics["failed"]:
        raise typer.Exit(1)


app.command("distilled")(students.distilled)
