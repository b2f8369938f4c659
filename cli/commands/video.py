"""``mforce video``: steady depth of a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...mforce_core.release import CFG, SAMPLERS
from ...mforce_core.settings import BUILT_IN, DEPTH_STEPS, Settings
from ..errors import report_errors
from . import options
from .values import model_files, parse_size

STEADY, RESULT = "Steadiness", "Result"
ANCHOR_EVERY, OVERLAP = 24, 4


def video(
    clip: Annotated[Path, typer.Argument(help="Video: mp4, mov, mkv, webm... or an animated gif, png, webp or avif.")],
    prompt: Annotated[str, typer.Option(help="What the clip shows, if that is known.")] = "",
    carry: Annotated[
        float,
        typer.Option(
            min=0.0, max=0.99, rich_help_panel=STEADY,
            help="Start each frame from the depth of the one before, at this noise level: 0.5 takes a third of the "
            "time. 0: every frame from the same noise.",
        ),
    ] = 0.0,
    anchor_every: Annotated[
        int, typer.Option(min=2, help="With --carry: frames after which depth is made anew.", rich_help_panel=STEADY)
    ] = ANCHOR_EVERY,
    overlap: Annotated[
        int, typer.Option(min=1, help="With --carry: frames over which it takes over.", rich_help_panel=STEADY)
    ] = OVERLAP,
    flow: Annotated[
        bool,
        typer.Option("--flow", help="Follow pixels by optical flow, for moving cameras. Needs OpenCV.",
                     rich_help_panel=STEADY),
    ] = False,
    one_scale: Annotated[
        bool,
        typer.Option("--one-scale/--each-scale", help="One scale for each shot, or each frame its own.",
                     rich_help_panel=STEADY),
    ] = True,
    cut: Annotated[
        float | None,
        typer.Option(help="Difference of colors, 0 to 1, that is a cut; 2 for none. Default: 0.2.", show_default=False,
                     rich_help_panel=STEADY),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Frames that are sampled together.", rich_help_panel=STEADY)] = 8,
    form: Annotated[
        str,
        typer.Option("--sequence", help="Numbered depth files: png (16 bits), exr, or none.", rich_help_panel=RESULT),
    ] = "png",
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="A video of clip and depth, too.", rich_help_panel=RESULT)
    ] = False,
    colors: Annotated[
        str,
        typer.Option(help="Of the videos: gray, spectral, viridis, magma, inferno or plasma.", rich_help_panel=RESULT),
    ] = "gray",
    original_size: Annotated[
        bool,
        typer.Option("--original-size/--working-size", help="Depth at the clip's own size, or the model's.",
                     rich_help_panel=RESULT),
    ] = True,
    steps: Annotated[
        int | None,
        options.sampling_option(
            help=f"Denoising steps of a frame. Default: {DEPTH_STEPS}, or those of a model of few steps."
        ),
    ] = None,
    sampler: options.Sampler = SAMPLERS[0],
    guidance: options.Guidance = None,
    seed: options.Seed = 0,
    size: options.Size = None,
    fit: options.Fit = "pad",
    model: options.Model = BUILT_IN,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    compile: options.Compile = False,
    cuda_graph: options.CudaGraph = False,
    debug: options.Debug = False,
) -> None:  # fmt: skip
    """Steady depth of a clip: a depth video, numbered depth files, side by side with the clip.

    Memory does not grow with the length of the clip. A run that was stopped is resumed by the same command with the
    same --output.
    """
    with report_errors(debug):
        from ...mforce_core.results.folder import default_output
        from ...mforce_core.video.changes import CUT
        from ...mforce_core.video.depth_sequence import COLORS, FORMS, PNG
        from ...mforce_core.video.steady import Steadiness
        from ..generation import fit_to_model
        from ..video import Files, run_video

        if form not in (*FORMS, "none"):
            raise ValueError(f"--sequence is one of {', '.join(FORMS)} or none, got {form!r}.")
        if colors not in COLORS:
            raise ValueError(f"--colors is one of {', '.join(COLORS)}, got {colors!r}.")
        if not carry and (flow or (anchor_every, overlap) != (ANCHOR_EVERY, OVERLAP)):
            raise ValueError(
                "--flow, --anchor-every and --overlap go with --carry: add it, such as --carry 0.5, or leave them out."
            )
        settings = Settings(
            "i2d", prompt, seed=seed, steps=DEPTH_STEPS if steps is None else steps, cfg=CFG["i2d"], sampler=sampler,
            guidance=guidance,
            size=parse_size(size), fit=fit, original_size=original_size, input=str(clip.absolute()),
            device=device, dtype=dtype, compile=compile, cuda_graph=cuda_graph,
            **model_files(model, text_encoder, vae),
        )  # fmt: skip
        settings = fit_to_model(settings, () if steps is None else ("steps",))
        how = Steadiness(carry, anchor_every, overlap, one_scale, flow, CUT if cut is None else cut, batch)
        files = Files(PNG if form == "none" else form, form != "none", side_by_side, colors)
        print(run_video(clip, settings, how, output or default_output("video"), files, overwrite=overwrite))
