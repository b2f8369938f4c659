"""The commands that measure: eval scenes, eval depth, eval d2i."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ...mforce_core.release import CFG, STEPS
from ...mforce_core.settings import BUILT_IN, Settings
from ..errors import report_errors
from . import options, students
from .default_command import DefaultCommandGroup
from .study_options import JsonFile, SceneSeed

app = typer.Typer(
    name="eval",
    cls=DefaultCommandGroup,
    help="Measure a model: its depth on benchmarks, its pictures, or a small model on held-out scenes (the default).",
    rich_markup_mode="rich",
)

DATA, PREDICTION, PROTOCOL, RUN = "Data", "Prediction", "Protocol", "Run"

Ensemble = Annotated[
    int,
    typer.Option(
        help="Maps per picture, from noise of their own, that become one by Marigold's ensemble.",
        min=1,
        rich_help_panel=PREDICTION,
    ),
]
EnsembleMethod = Annotated[
    str,
    typer.Option(
        help="marigold: scale and shift of each map, then the median in 0..1, for affine alignments only; "
        "median: scale only, so that every alignment is possible.",
        rich_help_panel=PREDICTION,
    ),
]
Processes = Annotated[
    int, typer.Option(help="Processes for each device; for saved predictions on a CPU.", min=1, rich_help_panel=RUN)
]
First = Annotated[
    int | None, typer.Option(help="Only so many pictures from the beginning.", min=1, rich_help_panel=DATA)
]


@app.command()
def scenes(
    model: options.Model = BUILT_IN,
    scenes: Annotated[int, typer.Option(help="Held-out scenes.", min=1)] = 256,
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

        files = options.model_files(model, text_encoder, vae)
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
    data: Annotated[
        Path | None,
        typer.Option(help="Folder or uncompressed tar of the set.", show_default=False, rich_help_panel=DATA),
    ] = None,
    listing: Annotated[
        Path | None,
        typer.Option("--list", help="Marigold's list of the set.", show_default=False, rich_help_panel=DATA),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="moge, marigold, or auto: MoGe's where there is an index.", rich_help_panel=DATA)
    ] = "auto",
    region: Annotated[
        str, typer.Option(help="Pixels of KITTI that count: eigen, garg or none.", rich_help_panel=DATA)
    ] = "eigen",
    scene_count: Annotated[
        int, typer.Option("--scenes", help="How many rendered scenes.", min=1, rich_help_panel=DATA)
    ] = 64,
    center_crop: Annotated[
        int | None,
        typer.Option(
            help="Score the largest square in the middle of pictures at this size: 256 in the paper's scaling study.",
            min=16,
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    first: First = None,
    model: options.Model = BUILT_IN,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Score saved maps instead of a model's: npy, npz, exr, pfm, tiff, 16-bit png, MoGe's png.",
            show_default=False,
            rich_help_panel=PREDICTION,
        ),
    ] = None,
    peer: Annotated[
        str | None,
        typer.Option(
            metavar="FAMILY:ID",
            help="Score another project's model where it is installed: transformers:, moge: or marigold:.",
            show_default=False,
            rich_help_panel=PREDICTION,
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option(help="What saved maps or a peer hold: depth or disparity.", rich_help_panel=PREDICTION)
    ] = "depth",
    ensemble: Ensemble = 1,
    ensemble_method: EnsembleMethod = "marigold",
    protocol: Annotated[
        str | None,
        typer.Option(
            help="moge or marigold. Default: that of the layout.", show_default=False, rich_help_panel=PROTOCOL
        ),
    ] = None,
    align: Annotated[
        str | None,
        typer.Option(
            help="Alignments instead of the protocol's, separated by commas: none, median, scale, affine-depth, "
            "affine-disparity, least-square, least-square-disparity.",
            show_default=False,
            rich_help_panel=PROTOCOL,
        ),
    ] = None,
    normals: Annotated[
        bool,
        typer.Option(
            "--normals", help="Also errors of surface normals, where the camera is known.", rich_help_panel=PROTOCOL
        ),
    ] = False,
    steps: options.Steps = STEPS,
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
        from ..generation import prepare
        from ..spread import Workers
        from ..tables import print_metrics

        if layout not in ("auto", "moge", "marigold"):
            raise ValueError(f"--layout is auto, moge or marigold, not {layout}.")
        places = options.parse_devices(devices) * processes
        found = None
        if predictions is None and peer is None:
            found = prepare(
                Settings(
                    "i2d", "", steps=steps, cfg=CFG["i2d"], seed=seed,
                    size=options.parse_size(size), device=places[0], dtype=dtype,
                    **options.model_files(model, text_encoder, vae),
                )
            )  # fmt: skip
        metrics = evaluate_depth(
            DataSpec(
                dataset, None if data is None else data.absolute(), layout,  # type: ignore[arg-type]
                None if listing is None else listing.absolute(), region, scene_count, crop=center_crop,
                own=own_files.OwnFiles if dataset == own_files.KEY else None,
            ),
            predictor_from(found, predictions=predictions, peer=peer, kind=kind, members=ensemble, seed=seed,
                method=ensemble_method),
            protocol,
            [name.strip() for name in align.split(",")] if align else [],
            output or default_output(f"eval-{dataset}"),
            normals=normals,
            overwrite=overwrite,
            workers=Workers(places, ray, ray_gpus),
            first=first,
        )  # fmt: skip
        for fact in metrics["facts"]:
            print(f"{fact}.")
        print_metrics({name: value for name, value in metrics.items() if name not in ("facts", "failed")})
        if metrics["failed"]:
            raise typer.Exit(1)


@app.command()
def d2i(
    listing: Annotated[
        Path | None,
        typer.Argument(
            metavar="LIST",
            help="One line per picture: path, tab, caption. Without it: rendered scenes, which have exact depth.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the pictures. Default: the list's.", show_default=False, rich_help_panel=DATA),
    ] = None,
    scene_count: Annotated[
        int, typer.Option("--scenes", help="How many rendered scenes.", min=1, rich_help_panel=DATA)
    ] = 64,
    first: First = None,
    model: options.Model = BUILT_IN,
    peer: Annotated[
        str | None,
        typer.Option(
            "--estimator",
            metavar="FAMILY:ID",
            help="What sees depth in pictures: transformers:, moge: or marigold:. "
            "Default: the model's own image to depth.",
            show_default=False,
            rich_help_panel=PREDICTION,
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Saved maps instead of an estimator, in its folders real and made, under the names of the pictures "
            "that the run writes into folders of these names. The run says when they are needed.",
            show_default=False,
            rich_help_panel=PREDICTION,
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option(help="What the estimator predicts: depth or disparity.", rich_help_panel=PREDICTION)
    ] = "depth",
    far_to_near: Annotated[
        float,
        typer.Option(
            help="Of an estimator of disparity: how many times farther its least is than its most.",
            rich_help_panel=PREDICTION,
        ),
    ] = 10.0,
    align: Annotated[
        str, typer.Option(help="Alignment of the depth seen in made pictures.", rich_help_panel=PROTOCOL)
    ] = "scale",
    fid: Annotated[
        str | None,
        typer.Option(
            help="FID and KID: clean, legacy_pytorch, legacy_tensorflow (clean-fid) or torch-fidelity.",
            show_default=False,
            rich_help_panel=PROTOCOL,
        ),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="CLIP score by this model of transformers.", show_default=False, rich_help_panel=PROTOCOL
        ),
    ] = None,
    steps: options.Steps = STEPS,
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
        from ..generation import prepare
        from ..image_evaluation import evaluate_images
        from ..spread import Workers
        from ..tables import print_metrics

        if kind not in ("depth", "disparity"):
            raise ValueError(f"--kind is depth or disparity, not {kind}.")
        if predictions is not None and peer is not None:
            raise ValueError("--predictions and --estimator exclude each other.")
        places = options.parse_devices(devices)
        settings, parts = prepare(
            Settings(
                "d2i", "", steps=steps, cfg=CFG["d2i"] if cfg is None else cfg, seed=seed, dtype=dtype,
                size=options.parse_size(size), device=places[0], **options.model_files(model, text_encoder, vae),
            )
        )  # fmt: skip
        estimator: PredictorSpec = FromModel(replace(settings, mode="i2d", cfg=CFG["i2d"]), parts)
        if peer is not None:
            estimator = FromPeer(peer, "disparity" if kind == "disparity" else "depth")
        if predictions is not None:
            estimator = FromFiles(predictions.absolute(), "disparity" if kind == "disparity" else "depth")
        pairs = PairSpec(
            None if listing is None else listing.absolute(), None if data is None else data.absolute(), scene_count
        )
        job = ImageJob(
            pairs, settings, parts, estimator, align, far_to_near, (output or default_output("eval-d2i")).absolute()
        )
        metrics = evaluate_images(
            job, first=first, fid=fid, clip=clip, overwrite=overwrite, workers=Workers(places, ray, ray_gpus)
        )
        for fact in metrics["facts"]:
            print(f"{fact}.")
        print_metrics({name: value for name, value in metrics.items() if name not in ("facts", "failed")})
        if metrics["failed"]:
            raise typer.Exit(1)


app.command("distilled")(students.distilled)
