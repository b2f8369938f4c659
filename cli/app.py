"""The commands of ``mforce``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..mforce_core.release import CFG, FOV_DEGREES, LOG2_ALPHA, STEPS, Mode
from ..mforce_core.settings import BUILT_IN, Settings
from . import bench, data, options
from .errors import LIGHTER_TRAINING, report_errors
from .options import parse_size

app = typer.Typer(
    name="mforce",
    help="Modality Forcing: an image and its depth from text, depth from an image, an image from depth.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(data.app)


def main() -> None:
    """Entry point of the ``mforce`` script."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"mforce {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def joint(
    prompt: Annotated[str, typer.Argument(help="What to show.")],
    tilt: options.Tilt = LOG2_ALPHA,
    refine_depth: options.RefineDepth = False,
    steps: options.Steps = STEPS,
    cfg: options.Cfg = None,
    guidance: options.Guidance = None,
    seed: options.Seed = 0,
    count: options.Count = 1,
    size: options.Size = None,
    fov: options.Fov = FOV_DEGREES,
    edge_threshold: options.EdgeThreshold = None,
    remove_outliers: options.RemoveOutliers = False,
    model: options.Model = BUILT_IN,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    compile_model: options.Compile = False,
    cuda_graph: options.CudaGraph = False,
    debug: options.Debug = False,
) -> None:
    """Text to image, depth and point cloud."""
    with report_errors(debug):
        settings = _settings(
            "joint", prompt, source=None, tilt=tilt, refine_depth=refine_depth, steps=steps, cfg=cfg,
            guidance=guidance, seed=seed, size=size, fov=fov, edge_threshold=edge_threshold,
            remove_outliers=remove_outliers, model=model, text_encoder=text_encoder, vae=vae, device=device,
            dtype=dtype, compile=compile_model, cuda_graph=cuda_graph,
        )  # fmt: skip
        _generate(settings, count, output, overwrite)


@app.command()
def i2d(
    image: Annotated[Path, typer.Argument(help="Picture: png, jpg, webp, tiff...")],
    prompt: Annotated[str, typer.Option(help="What the picture shows, if that is known.")] = "",
    steps: options.Steps = STEPS,
    cfg: options.Cfg = None,
    guidance: options.Guidance = None,
    seed: options.Seed = 0,
    count: options.Count = 1,
    size: options.Size = None,
    fit: options.Fit = "pad",
    fov: options.Fov = FOV_DEGREES,
    edge_threshold: options.EdgeThreshold = None,
    remove_outliers: options.RemoveOutliers = False,
    model: options.Model = BUILT_IN,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    compile_model: options.Compile = False,
    cuda_graph: options.CudaGraph = False,
    debug: options.Debug = False,
) -> None:
    """Image to depth and point cloud."""
    with report_errors(debug):
        settings = _settings(
            "i2d", prompt, source=image, steps=steps, cfg=cfg, guidance=guidance, seed=seed, size=size,
            fit=fit, fov=fov, edge_threshold=edge_threshold, remove_outliers=remove_outliers, model=model,
            text_encoder=text_encoder, vae=vae, device=device, dtype=dtype, compile=compile_model,
            cuda_graph=cuda_graph,
        )  # fmt: skip
        _generate(settings, count, output, overwrite)


@app.command()
def d2i(
    depth: Annotated[
        Path, typer.Argument(help="Depth map: npy, npz, exr, pfm, 16-bit or float png or tiff. 0 and NaN are missing.")
    ],
    prompt: Annotated[str, typer.Argument(help="What to show.")],
    disparity: Annotated[
        bool,
        typer.Option(
            "--disparity",
            help="The file holds inverse depth, in which near is bright. 8-bit maps always do.",
            rich_help_panel=options.INPUT,
        ),
    ] = False,
    far_to_near: Annotated[
        float | None,
        typer.Option(
            help="Of disparity that was stretched to all levels: how many times farther its darkest pixel is than its "
            "brightest. Default: 10 where a map looks stretched.",
            show_default=False,
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="Image or boolean .npy, darker than half where the depth is not to be used.",
            show_default=False,
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    steps: options.Steps = STEPS,
    cfg: options.Cfg = None,
    guidance: options.Guidance = None,
    seed: options.Seed = 0,
    count: options.Count = 1,
    size: options.Size = None,
    fit: options.Fit = "pad",
    fov: options.Fov = FOV_DEGREES,
    edge_threshold: options.EdgeThreshold = None,
    remove_outliers: options.RemoveOutliers = False,
    model: options.Model = BUILT_IN,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    compile_model: options.Compile = False,
    cuda_graph: options.CudaGraph = False,
    debug: options.Debug = False,
) -> None:
    """Depth to image."""
    with report_errors(debug):
        settings = _settings(
            "d2i", prompt, source=depth, disparity=disparity, far_to_near=far_to_near, mask=mask, steps=steps, cfg=cfg,
            guidance=guidance, seed=seed, size=size, fit=fit, fov=fov, edge_threshold=edge_threshold,
            remove_outliers=remove_outliers, model=model, text_encoder=text_encoder, vae=vae, device=device,
            dtype=dtype, compile=compile_model, cuda_graph=cuda_graph,
        )  # fmt: skip
        _generate(settings, count, output, overwrite)


@app.command()
def rerun(
    metadata: Annotated[Path, typer.Argument(help="metadata.json of a result, or its folder.")],
    new_input: Annotated[
        Path | None, typer.Option("--input", help="Where the input file is now.", show_default=False)
    ] = None,
    new_mask: Annotated[Path | None, typer.Option("--mask", help="Where the mask is now.", show_default=False)] = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Make a result again from its metadata.json and compare the files."""
    with report_errors(debug):
        from ..mforce_core.results.folder import default_output
        from . import generation
        from .progress import say

        before = generation.read_metadata(metadata)
        settings = Settings.from_dict(before["settings"])
        settings = _moved(settings, new_input, new_mask)
        generation.check_inputs(before, settings)
        settings, parts = generation.prepare(settings)
        output = output or default_output("rerun")
        generation.generate_folder([settings], parts, output, overwrite=overwrite)
        changed = generation.differences(before, output)
        say(f"Different from the original: {', '.join(changed)}." if changed else "Identical to the original.")
        print(output)


@app.command()
def demo(
    steps: options.Steps = STEPS,
    seed: options.Seed = 0,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    model: options.Model = BUILT_IN,
    debug: options.Debug = False,
) -> None:
    """Try all three modes on the built-in model."""
    with report_errors(debug):
        from ..mforce_core.results.folder import default_output
        from .demo import run_demo

        run_demo(output or default_output("demo"), model, steps, seed, device, overwrite=overwrite)


@app.command()
def info(
    checkpoint: Annotated[
        str | None, typer.Argument(help="Release folder, .safetensors file, or nano.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="Also how much memory the weights take.")] = False,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="What runs each step of the model on this machine, and why.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Describe a checkpoint without loading it, or this machine's kernels. Exits with 1 where it has problems."""
    with report_errors(debug):
        if (checkpoint is None) != kernels:
            raise ValueError("Give a checkpoint to describe, or --kernels without one.")
        if checkpoint is None:
            from .kernel_info import describe_kernels, print_kernels

            devices = describe_kernels()
            if as_json:
                print(json.dumps(devices, indent=2))
            else:
                print_kernels(devices)
            return
        from .checkpoint_info import describe_checkpoint

        found = describe_checkpoint(Path(checkpoint), memory=memory)
        if as_json:
            print(json.dumps(found, indent=2))
        else:
            from .tables import print_checkpoint

            print_checkpoint(found)
        if found["problems"]:
            raise typer.Exit(1)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="Release folder or .safetensors file; or a release's ae_encoder.safetensors.")
    ],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    to: Annotated[
        str | None,
        typer.Option(
            help="bf16, fp32, fp8 or int8. Default: bf16; an autoencoder keeps its precision.", show_default=False
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")] = False,
    debug: options.Debug = False,
) -> None:
    """Make a release one file for ComfyUI, whole or at half the size; two autoencoder files one."""
    with report_errors(debug):
        from .convert import run_conversion

        run_conversion(source, out, to, overwrite=overwrite)
        print(out)


@app.command(name="eval")
def evaluate(
    model: options.Model = BUILT_IN,
    scenes: Annotated[int, typer.Option(help="Held-out scenes.", min=1)] = 256,
    steps: options.Steps = STEPS,
    seed: Annotated[int, typer.Option(help="Of scenes and noise; training uses small ones.")] = 1_000_000,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the numbers to this file.", show_default=False),
    ] = None,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    device: options.Device = "auto",
    debug: options.Debug = False,
) -> None:
    """Measure a small model on held-out scenes."""
    with report_errors(debug):
        from .evaluation import run_evaluation
        from .tables import print_metrics

        words, autoencoder = (None if path is None else str(path) for path in (text_encoder, vae))
        settings = Settings(
            "joint", "", seed=seed, steps=steps, model=model, text_encoder=words, vae=autoencoder, device=device
        )
        metrics = run_evaluation(settings, scenes, json_file)
        print_metrics(metrics)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="TOML file, or a preset: nano-t2i, nano-mf, klein-4b, ...")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a value of the file.", show_default=False),
    ] = None,
    processes: Annotated[int, typer.Option(help="GPUs of this machine that share the run.", min=1)] = 1,
    plan: Annotated[bool, typer.Option("--plan", help="Only estimate memory and time.")] = False,
    changed: Annotated[
        bool, typer.Option("--changed", help="Go on although seed, data or length differ from the run's.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Train a stage of a model, or go on with it."""
    with report_errors(debug, LIGHTER_TRAINING):
        from .train import run_training

        code = run_training(config, overrides or [], processes, plan_only=plan, changed=changed)
        if code:
            raise typer.Exit(code)


@app.command()
def study(
    config: Annotated[Path, typer.Argument(help="TOML file, or scaling, depth-start, sparse-depth.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="For both stages of every cell.", show_default=False),
    ] = None,
    only: Annotated[str, typer.Option(metavar="PATTERN", help="Cells to run, as in w64-*.")] = "*",
    debug: options.Debug = False,
) -> None:
    """Train a grid of sizes, budgets and recipes, or go on with it, and compare their held-out errors."""
    with report_errors(debug, LIGHTER_TRAINING):
        from .study import run

        run(config, overrides or [], only)


app.command()(bench.bench)


def _settings(mode: Mode, prompt: str, *, source: Path | None, **values: Any) -> Settings:
    """Settings from the options of a command: paths absolute, so that a rerun finds them from anywhere."""
    values["cfg"] = CFG[mode] if values["cfg"] is None else values["cfg"]
    values["size"] = parse_size(values["size"])
    values["input"] = source
    for name in ("input", "mask", "text_encoder", "vae"):
        if values.get(name) is not None:
            values[name] = str(Path(values[name]).absolute())
    if values["model"] != BUILT_IN:
        values["model"] = str(Path(values["model"]).absolute())
    return Settings(mode, prompt, **values)


def _moved(settings: Settings, new_input: Path | None, new_mask: Path | None) -> Settings:
    if new_input is not None:
        settings = replace(settings, input=str(new_input.absolute()))
    if new_mask is not None:
        settings = replace(settings, mask=str(new_mask.absolute()))
    return settings


def _generate(settings: Settings, count: int, output: Path | None, overwrite: bool) -> None:
    from ..mforce_core.results.folder import check_output, default_output
    from . import generation

    jobs = generation.numbered(settings, count)
    output = output or default_output(settings.mode)
    check_output(output, overwrite=overwrite)
    resolved, parts = generation.prepare(jobs[0])
    jobs = [replace(resolved, seed=job.seed) for job in jobs]
    print(generation.generate_folder(jobs, parts, output, overwrite=overwrite) / "sheet.png")
