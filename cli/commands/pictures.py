"""The commands that make pictures and depth: joint, i2d, d2i, rerun, demo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ...mforce_core.release import CFG, FOV_DEGREES, LOG2_ALPHA, SAMPLERS, STEPS, Mode
from ...mforce_core.settings import BUILT_IN, Settings
from ..errors import report_errors
from . import options
from .options import parse_interval, parse_size


def joint(
    prompt: Annotated[str, typer.Argument(help="What to show.")],
    tilt: options.Tilt = LOG2_ALPHA,
    path: options.PathOption = None,
    refine_depth: options.RefineDepth = False,
    steps: options.Steps = STEPS,
    sampler: options.Sampler = SAMPLERS[0],
    cfg: options.Cfg = None,
    cfg_interval: options.CfgInterval = None,
    cfg_rescale: options.CfgRescale = 0.0,
    cfg_parallel: options.CfgParallel = 1.0,
    guidance: options.Guidance = None,
    seed: options.Seed = 0,
    count: options.Count = 1,
    size: options.Size = None,
    fov: options.Fov = FOV_DEGREES,
    edge_threshold: options.EdgeThreshold = None,
    remove_outliers: options.RemoveOutliers = False,
    also: options.Also = None,
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
            "joint", prompt, source=None, tilt=None if path else tilt, path=path, refine_depth=refine_depth,
            steps=steps, sampler=sampler, cfg=cfg, cfg_interval=cfg_interval, cfg_rescale=cfg_rescale,
            cfg_parallel=cfg_parallel,
            guidance=guidance, seed=seed, size=size, fov=fov, edge_threshold=edge_threshold,
            remove_outliers=remove_outliers, also=also, model=model, text_encoder=text_encoder, vae=vae, device=device,
            dtype=dtype, compile=compile_model, cuda_graph=cuda_graph,
        )  # fmt: skip
        _generate(settings, count, output, overwrite)


def i2d(
    images: Annotated[
        list[str], typer.Argument(help='Pictures (png, jpg, webp, tiff...), folders of them, or patterns: "*.jpg".')
    ],
    prompt: Annotated[str, typer.Option(help="What the picture shows, if that is known.")] = "",
    ensemble: options.Ensemble = 1,
    align_shift: options.AlignShift = False,
    follow: options.Follow = None,
    path: options.PathOption = None,
    steps: options.Steps = STEPS,
    sampler: options.Sampler = SAMPLERS[0],
    cfg: options.Cfg = None,
    cfg_interval: options.CfgInterval = None,
    cfg_rescale: options.CfgRescale = 0.0,
    cfg_parallel: options.CfgParallel = 1.0,
    guidance: options.Guidance = None,
    seed: options.Seed = 0,
    count: options.Count = 1,
    size: options.Size = None,
    fit: options.Fit = "pad",
    original_size: Annotated[
        bool,
        typer.Option(
            "--original-size/--working-size",
            help="Results at the picture's own size, or at the size that the model works at.",
            rich_help_panel=options.INPUT,
        ),
    ] = True,
    fov: options.Fov = FOV_DEGREES,
    edge_threshold: options.EdgeThreshold = None,
    remove_outliers: options.RemoveOutliers = False,
    also: options.Also = None,
    model: options.Model = BUILT_IN,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    compile_model: options.Compile = False,
    cuda_graph: options.CudaGraph = False,
    ray: options.Ray = 0,
    ray_gpus: options.RayGpus = 0,
    debug: options.Debug = False,
) -> None:
    """Image to depth and point cloud.

    Of several pictures, each gets a folder named after it. The model is loaded once, pictures that cannot be used are
    listed at the end, and the same command with the same --output resumes where it was stopped. --device cuda:0,cuda:1
    splits the pictures over devices; --ray 8 --ray-gpus 1 over the machines of a Ray cluster, which see pictures, model
    and output under the same paths.
    """
    with report_errors(debug):
        from ..picture_list import is_several

        one = Path(images[0]) if len(images) == 1 and not is_several(images[0]) else None
        devices = device.split(",")
        settings = _settings(
            "i2d", prompt, source=one, ensemble=ensemble, align_shift=align_shift, follow=follow, path=path,
            steps=steps, sampler=sampler, cfg=cfg,
            cfg_interval=cfg_interval, cfg_rescale=cfg_rescale, cfg_parallel=cfg_parallel, guidance=guidance,
            seed=seed, size=size,
            fit=fit, original_size=original_size, fov=fov, edge_threshold=edge_threshold,
            remove_outliers=remove_outliers, also=also, model=model, text_encoder=text_encoder, vae=vae,
            device=devices[0], dtype=dtype, compile=compile_model, cuda_graph=cuda_graph,
        )  # fmt: skip
        if one is not None and len(devices) == 1 and not ray:
            _generate(settings, count, output, overwrite)
        elif count != 1:
            raise ValueError("--count goes with one picture: give one, or leave it out.")
        else:
            _generate_many(images, settings, output, overwrite, devices=devices, ray_workers=ray, ray_gpus=ray_gpus)


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
    follow: options.Follow = None,
    path: options.PathOption = None,
    steps: options.Steps = STEPS,
    sampler: options.Sampler = SAMPLERS[0],
    cfg: options.Cfg = None,
    cfg_interval: options.CfgInterval = None,
    cfg_rescale: options.CfgRescale = 0.0,
    cfg_parallel: options.CfgParallel = 1.0,
    guidance: options.Guidance = None,
    seed: options.Seed = 0,
    count: options.Count = 1,
    size: options.Size = None,
    fit: options.Fit = "pad",
    fov: options.Fov = FOV_DEGREES,
    edge_threshold: options.EdgeThreshold = None,
    remove_outliers: options.RemoveOutliers = False,
    also: options.Also = None,
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
            "d2i", prompt, source=depth, disparity=disparity, far_to_near=far_to_near, mask=mask, follow=follow,
            path=path, steps=steps, sampler=sampler, cfg=cfg, cfg_interval=cfg_interval, cfg_rescale=cfg_rescale,
            cfg_parallel=cfg_parallel, guidance=guidance, seed=seed, size=size, fit=fit, fov=fov,
            edge_threshold=edge_threshold, remove_outliers=remove_outliers, also=also, model=model,
            text_encoder=text_encoder, vae=vae, device=device, dtype=dtype, compile=compile_model,
            cuda_graph=cuda_graph,
        )  # fmt: skip
        _generate(settings, count, output, overwrite)


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
        from ...mforce_core.results.folder import default_output
        from .. import generation
        from ..progress import say

        before = generation.read_metadata(metadata)
        settings = Settings.from_dict(before["settings"])
        settings = _moved(settings, new_input, new_mask)
        generation.check_inputs(before, settings)
        settings, parts = generation.prepare(settings)
        output = output or default_output("rerun")
        with generation.pinning(before, settings):
            generation.generate_folder([settings], parts, output, overwrite=overwrite)
        changed = generation.differences(before, output)
        say(f"Different from the original: {', '.join(changed)}." if changed else "Identical to the original.")
        print(output)


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
        from ...mforce_core.results.folder import default_output
        from ..demo import run_demo

        run_demo(output or default_output("demo"), model, steps, seed, device, overwrite=overwrite)


def _settings(mode: Mode, prompt: str, *, source: Path | None, **values: Any) -> Settings:
    """Settings from the options of a command: paths absolute, so that a rerun finds them from anywhere."""
    values["cfg"] = CFG[mode] if values["cfg"] is None else values["cfg"]
    values["size"] = parse_size(values["size"])
    values["cfg_interval"] = parse_interval(values["cfg_interval"])
    values["also"] = tuple(values["also"].split(",")) if values["also"] else ()
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
    from ...mforce_core.results.folder import check_output, default_output
    from .. import generation

    jobs = generation.numbered(settings, count)
    output = output or default_output(settings.mode)
    check_output(output, overwrite=overwrite)
    resolved, parts = generation.prepare(jobs[0])
    jobs = [replace(resolved, seed=job.seed) for job in jobs]
    print(generation.generate_folder(jobs, parts, output, overwrite=overwrite) / "sheet.png")


def _generate_many(images: list[str], settings: Settings, output: Path | None, overwrite: bool, **where: Any) -> None:
    """``where``: the devices or Ray actors that `run_many` takes."""
    from ...mforce_core.results.folder import default_output
    from .. import many
    from ..picture_list import find_pictures

    pictures = find_pictures(images)
    output = output or default_output(settings.mode)
    outcomes = many.run_many(pictures, settings, output, overwrite=overwrite, **where)
    code = many.report(outcomes)
    print(output)
    if code:
        raise typer.Exit(code)
