"""The commands that make pictures and depth: joint, i2d, d2i, rerun, demo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ...mforce_core.release import CFG, LOG2_ALPHA, Mode
from ...mforce_core.settings import (
    BUILT_IN,
    DEPTH_STEPS,
    FAST_SAMPLER,
    FAST_SIGMA,
    FAST_STEPS,
    FILES,
    STRENGTH,
    TILE_OVERLAP,
    Settings,
)
from ..errors import report_errors
from . import options
from .shared_options import OF_THE_COMMAND, shared_options
from .values import model_files, parse_interval, parse_size


@shared_options
def joint(
    prompt: Annotated[str, typer.Argument(help="What to show.")],
    tilt: options.Tilt = LOG2_ALPHA,
    fast: options.Fast = False,
    refine_depth: options.RefineDepth = False,
    start_image: options.StartImage = None,
    start_depth: options.StartDepth = None,
    strength: options.StartStrength = None,
    fit: options.Fit = "pad",
    enlarge: options.Enlarge = 1.0,
    tile: options.Tile = None,
    overlap: options.Overlap = TILE_OVERLAP,
    tile_strength: options.TileStrength = None,
    **shared: Any,
) -> None:
    """Text to image, depth and point cloud."""
    with report_errors(shared["debug"]):
        if "tilt" in shared["given"] and "path" in shared["given"]:
            raise ValueError("--path says which stream leads: leave --tilt out, or write --path 'tilt log2_alpha=...'.")
        if fast:
            shared |= _fast(f"tilt log2_alpha={tilt}", shared)
        tilted = None if shared["path"] else tilt
        starts = _starts(strength, start_image=start_image, start_depth=start_depth)
        settings = _settings(
            "joint", prompt, source=None, tilt=tilted, refine_depth=refine_depth, fit=fit, enlarge=enlarge, tile=tile,
            overlap=overlap, tile_strength=tile_strength, **starts, **shared,
        )  # fmt: skip
        _generate(settings, shared)


@shared_options
def i2d(
    images: Annotated[
        list[str], typer.Argument(help='Pictures (png, jpg, webp, tiff...), folders of them, or patterns: "*.jpg".')
    ],
    prompt: Annotated[str, typer.Option(help="What the picture shows, if that is known.")] = "",
    ensemble: options.Ensemble = 1,
    align_shift: options.AlignShift = False,
    follow: options.Follow = None,
    steps: options.DepthSteps = DEPTH_STEPS,
    start_depth: options.StartDepth = None,
    strength: options.StartStrength = None,
    fit: options.Fit = "pad",
    original_size: Annotated[
        bool,
        options.input_option(
            "--original-size/--working-size",
            help="Results at the picture's own size, or at the size that the model works at.",
        ),
    ] = True,
    full_size: options.FullSize = False,
    tile: options.Tile = None,
    overlap: options.Overlap = TILE_OVERLAP,
    tile_strength: options.TileStrength = None,
    ray: options.Ray = 0,
    ray_gpus: options.RayGpus = 0,
    **shared: Any,
) -> None:
    """Image to depth and point cloud.

    Of several pictures, each gets a folder named after it. The model is loaded once, pictures that cannot be used are
    listed at the end, and the same command with the same --output resumes where it was stopped. --device cuda:0,cuda:1
    splits the pictures over devices; --ray 8 --ray-gpus 1 over the machines of a Ray cluster, which see pictures, model
    and output under the same paths.
    """
    with report_errors(shared["debug"]):
        from ..picture_list import is_several

        if align_shift and ensemble == 1:
            raise ValueError("--align-shift goes with --ensemble: it says how the maps of one are brought together.")
        one = Path(images[0]) if len(images) == 1 and not is_several(images[0]) else None
        devices = shared["device"].split(",")
        starts = _starts(strength, start_depth=start_depth)
        settings = _settings(
            "i2d", prompt, source=one, ensemble=ensemble, align_shift=align_shift, follow=follow, steps=steps,
            fit=fit, original_size=original_size, full_size=full_size, tile=tile, overlap=overlap,
            tile_strength=tile_strength, **starts, **{**shared, "device": devices[0]},
        )  # fmt: skip
        if start_depth is not None and one is None:
            raise ValueError("--start-depth goes with one picture: give one, or leave it out.")
        if one is not None and len(devices) == 1 and not ray:
            _generate(settings, shared)
        elif shared["count"] != 1:
            raise ValueError("--count goes with one picture: give one, or leave it out.")
        else:
            _generate_many(images, settings, shared, devices=devices, ray_workers=ray, ray_gpus=ray_gpus)


@shared_options
def d2i(
    depth: Annotated[
        Path, typer.Argument(help="Depth map: npy, npz, exr, pfm, 16-bit or float png or tiff. 0 and NaN are missing.")
    ],
    prompt: Annotated[str, typer.Argument(help="What to show.")],
    disparity: Annotated[
        bool,
        options.input_option(
            "--disparity", help="The file holds inverse depth, in which near is bright. 8-bit maps always do."
        ),
    ] = False,
    far_to_near: Annotated[float | None, options.input_option(help=options.FAR_TO_NEAR)] = None,
    mask: Annotated[
        Path | None,
        options.input_option(help="Image or boolean .npy, darker than half where the depth is not to be used."),
    ] = None,
    follow: options.Follow = None,
    fast: options.Fast = False,
    start_image: options.StartImage = None,
    strength: options.StartStrength = None,
    fit: options.Fit = "pad",
    **shared: Any,
) -> None:
    """Depth to image."""
    with report_errors(shared["debug"]):
        if fast and (faster := _fast("d2i" if follow is None else f"d2i log2_alpha={follow}", shared)):
            shared |= faster
            follow = None  # it is in the path
        settings = _settings(
            "d2i", prompt, source=depth, disparity=disparity, far_to_near=far_to_near, mask=mask, follow=follow,
            fit=fit, **_starts(strength, start_image=start_image), **shared,
        )  # fmt: skip
        _generate(settings, shared)


def rerun(
    metadata: Annotated[Path, typer.Argument(help="metadata.json of a result, or its folder.")],
    new_input: Annotated[Path | None, typer.Option("--input", help="Where the input file is now.")] = None,
    new_mask: Annotated[Path | None, typer.Option("--mask", help="Where the mask is now.")] = None,
    start_image: Annotated[Path | None, typer.Option(help="Where that picture is now.")] = None,
    start_depth: Annotated[Path | None, typer.Option(help="Where that map is now.")] = None,
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
        moved = {"input": new_input, "mask": new_mask, "start_image": start_image, "start_depth": start_depth}
        here: dict[str, Any] = {name: str(path.absolute()) for name, path in moved.items() if path is not None}
        settings = replace(settings, **here)
        generation.check_inputs(before, settings)
        settings, parts = generation.prepare(settings)
        output = output or default_output("rerun")
        with generation.pinning(before, settings):
            generation.generate_folder([settings], parts, output, overwrite=overwrite)
        changed = generation.differences(before, output)
        say(f"Different from the original: {', '.join(changed)}." if changed else "Identical to the original.")
        print(output)


def demo(
    steps: options.StepsOfModel = None,
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


def _fast(usual: str, shared: Mapping[str, Any]) -> dict[str, Any]:
    """What `--fast` stands for, as if it had been given; nothing for a model of few steps, which is faster by itself.

    Raises:
        ValueError: an option that it decides is given beside it.
    """
    given = shared["given"]
    chosen = {"steps": FAST_STEPS, "sampler": FAST_SAMPLER, "path": f"{usual} sigma={FAST_SIGMA}"}
    for name in chosen:
        if name in given:
            raise ValueError(f"--fast has {name} of its own: leave --{name} out, or --fast.")
    from .. import generation
    from ..progress import say

    if generation.made_for_few_steps(**model_files(shared["model"], shared["text_encoder"], shared["vae"])):
        say("--fast changes nothing: this model was made for few steps, and takes them by itself.")
        return {}
    return {**chosen, "given": given | set(chosen)}


def _starts(strength: float | None, **files: Path | None) -> dict[str, Any]:
    """Settings of the streams that start from the content of a file."""
    given = {name: file for name, file in files.items() if file is not None}
    if strength is not None and not given:
        raise ValueError(f"--strength goes with {' or '.join('--' + name.replace('_', '-') for name in files)}.")
    levels = {f"{name.removeprefix('start_')}_strength": STRENGTH if strength is None else strength for name in given}
    return {**given, **levels}


def _settings(mode: Mode, prompt: str, *, source: Path | None, **values: Any) -> Settings:
    """Settings from the options of a command: paths absolute, so that a rerun finds them from anywhere."""
    values = {name: value for name, value in values.items() if name not in OF_THE_COMMAND}
    values["cfg"] = CFG[mode] if values["cfg"] is None else values["cfg"]
    values["size"] = parse_size(values["size"])
    values["cfg_interval"] = parse_interval(values["cfg_interval"])
    values["also"] = tuple(values["also"].split(",")) if values["also"] else ()
    values["input"] = source
    for name in FILES:
        if values.get(name) is not None:
            values[name] = str(Path(values[name]).absolute())
    values |= model_files(values["model"], values["text_encoder"], values["vae"])
    return Settings(mode, prompt, **values)


def _generate(settings: Settings, shared: Mapping[str, Any]) -> None:
    from ...mforce_core.results.folder import check_output, default_output
    from .. import generation

    settings = generation.fit_to_model(settings, shared["given"])
    jobs = generation.numbered(settings, shared["count"])
    output, overwrite = shared["output"] or default_output(settings.mode), shared["overwrite"]
    check_output(output, overwrite=overwrite)
    resolved, parts = generation.prepare(jobs[0])
    jobs = [replace(resolved, seed=job.seed) for job in jobs]
    print(generation.generate_folder(jobs, parts, output, overwrite=overwrite) / "sheet.png")


def _generate_many(images: list[str], settings: Settings, shared: Mapping[str, Any], **where: Any) -> None:
    """``where``: the devices or Ray actors that `run_many` takes."""
    from ...mforce_core.results.folder import default_output
    from .. import many
    from ..generation import fit_to_model
    from ..picture_list import find_pictures

    pictures = find_pictures(images)
    settings = fit_to_model(settings, shared["given"])
    output = shared["output"] or default_output(settings.mode)
    outcomes = many.run_many(pictures, settings, output, overwrite=shared["overwrite"], **where)
    code = many.report(outcomes)
    print(output)
    if code:
        raise typer.Exit(code)
