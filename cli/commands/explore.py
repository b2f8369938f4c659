"""``mforce explore``: walk into a picture."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ...mforce_core.settings import BUILT_IN, DEPTH_STEPS, FILL_NOISE, FILL_STEPS, Settings
from ..errors import report_errors
from . import options
from .values import model_files, parse_size

#: That are filled, and that the clip has, on a route.
VIEWS, FRAMES = 8, 48

_way = partial(typer.Option, rich_help_panel="Way")
_filling = partial(typer.Option, rich_help_panel="Filling")


def explore(
    source: Annotated[Path, typer.Argument(help="A picture, or the folder of a result of mforce.")],
    depth: Annotated[
        Path | None, options.input_option(help="Depth file of the picture. Default: the model makes it.")
    ] = None,
    fov: Annotated[
        float | None,
        options.input_option(
            min=1.0,
            max=170.0,
            help="Horizontal field of view of the picture in degrees. Default: the result's, else 65.",
        ),
    ] = None,
    route: Annotated[
        str | None,
        _way(
            help="walk in, to the right, to the left, up, back, swing, orbit, dolly, spiral or stereo. "
            "Default: walk in."
        ),
    ] = None,
    amplitude: Annotated[
        float | None,
        _way(
            min=0.0,
            max=5.0,
            help="How far, as a fraction of the distance to what is in the middle. "
            "Default: 0.3; for stereo, between the eyes, 0.03.",
        ),
    ] = None,
    views: Annotated[
        int | None, _way(min=1, max=64, help="Views that are filled. Default: 8, or those of --cameras.")
    ] = None,
    frames: Annotated[
        int | None, _way(min=1, max=4096, help="Length of the clip. Default: 48, or the number of --cameras.")
    ] = None,
    layout: Annotated[
        str | None,
        _way(
            help="For stereo: side by side, half side by side, over under, half over under or anaglyph (red "
            "cyan). Default: side by side."
        ),
    ] = None,
    cameras: Annotated[
        Path | None,
        _way(
            help="JSON of cameras in place of the route: transform_matrix (OpenGL, as in transforms.json) or "
            "world_to_camera (OpenCV); the picture's camera is at the origin."
        ),
    ] = None,
    prompt: Annotated[str, _filling(help="What the scene shows.")] = "",
    cfg: Annotated[float | None, _filling(help="Guidance towards the prompt. Default: 4; 1 without a prompt.")] = None,
    steps: Annotated[
        int | None,
        _filling(min=1, help=f"Steps of both streams. Default: {FILL_STEPS}, or those of a model of few steps."),
    ] = None,
    noise: Annotated[
        float, _filling(min=0.05, max=1.0, help="Noise over the background that a hole starts from.")
    ] = FILL_NOISE,
    resample: Annotated[
        int, _filling(min=0, max=20, help="Repeat the first half of the steps this many times, from new noise.")
    ] = 0,
    depth_steps: Annotated[
        int | None,
        _filling(
            min=0,
            help="Steps of the depth that is made once more from the finished view; 0 leaves that out. "
            f"Default: {DEPTH_STEPS}, or those of a model of few steps.",
        ),
    ] = None,
    seed: options.Seed = 0,
    size: options.Size = None,
    model: options.Model = BUILT_IN,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    debug: options.Debug = False,
) -> None:
    """Walk into a picture: what comes into view is made, picture and depth together.

    Writes the filled views with their depth and cameras (OpenGL and OpenCV), the scene as scene.ply and a clip without
    holes; for stereo, both eyes.
    """
    with report_errors(debug):
        from ...mforce_core.explore.filling import FillSettings
        from ...mforce_core.explore.route import ROUTES, STEREO, WALK_IN
        from ...mforce_core.results.folder import check_output, default_output
        from ...mforce_core.scene3d.stereo import LAYOUTS, SIDE_BY_SIDE
        from ..explore import Way
        from ..explore import explore as run

        taken = {"--route": route, "--amplitude": amplitude, "--views": views, "--frames": frames}
        if cameras is not None and (beside := [name for name, value in taken.items() if value is not None]):
            raise ValueError(f"{beside[0]} does nothing beside --cameras, which say where the views are: leave it out.")
        if layout is not None and route != STEREO:
            raise ValueError("--layout is for --route stereo: leave it out.")
        route, layout = route or WALK_IN, layout or SIDE_BY_SIDE
        if route not in ROUTES:
            raise ValueError(f"--route is one of: {', '.join(ROUTES)}.")
        if layout not in LAYOUTS:
            raise ValueError(f"--layout is one of: {', '.join(LAYOUTS)}.")
        for path in (source, depth, cameras):
            if path is not None and not path.exists():
                raise ValueError(f"{path} does not exist.")
        usual = 0.03 if route == STEREO else 0.3
        way = Way(route, usual if amplitude is None else amplitude, views or VIEWS, frames or FRAMES, layout, cameras)
        settings = Settings(
            "i2d", "", seed=seed, steps=DEPTH_STEPS, cfg=1.0, size=parse_size(size), device=device, dtype=dtype,
            **model_files(model, text_encoder, vae),
        )  # fmt: skip
        filling = FillSettings(prompt, cfg, seed, steps, noise, resample, depth_steps)
        output = output or default_output("explore")
        check_output(output, overwrite=overwrite)
        print(run(source, depth, fov, settings, filling, way, output, overwrite=overwrite))
