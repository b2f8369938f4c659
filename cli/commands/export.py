"""The commands that turn depth into files for other programs: mforce export ..."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..errors import report_errors
from . import options

app = typer.Typer(
    name="export", help="A result, or any depth file, for 3D programs and compositors.", no_args_is_help=True
)

Source = Annotated[Path, typer.Argument(help="Folder of a result, or a depth file: npy, npz, exr, pfm, png, tiff.")]
Picture = Annotated[Path | None, typer.Option("--image", help="The picture of a depth file, for its colors.")]
Fov = Annotated[float | None, typer.Option(help="Horizontal field of view in degrees. Default: the result's, else 65.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")]
Disparity = Annotated[bool, typer.Option("--disparity", help="The file holds inverse depth, in which near is bright.")]
FarToNear = Annotated[float | None, typer.Option(help=options.FAR_TO_NEAR)]

_output = partial(typer.Option, "--output", "-o")


@app.command()
def cloud(
    source: Source,
    image: Picture = None,
    fov: Fov = None,
    disparity: Disparity = False,
    far_to_near: FarToNear = None,
    normals: Annotated[bool, typer.Option("--normals", help="With surface normals.")] = False,
    output: Annotated[Path, _output(help="File to write: .ply or .glb.")] = Path("cloud.ply"),
    overwrite: Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """A colored point cloud, the camera at the origin."""
    with report_errors(debug):
        from .. import export

        export.check_target(output, overwrite=overwrite)
        export.write_cloud(export.open_scene(source, image, fov, disparity or None, far_to_near), output, normals)
        print(output)


@app.command()
def splats(
    source: Source,
    image: Picture = None,
    fov: Fov = None,
    disparity: Disparity = False,
    far_to_near: FarToNear = None,
    size: Annotated[float, typer.Option(min=0.1, max=10.0, help="Size of the splats: 1 just closes surfaces.")] = 1.0,
    output: Annotated[Path, _output(help="File to write.")] = Path("splats.ply"),
    overwrite: Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Gaussian splats as a .ply of 3D Gaussian Splatting, one for each pixel."""
    with report_errors(debug):
        from .. import export

        export.check_target(output, overwrite=overwrite)
        export.write_splats(export.open_scene(source, image, fov, disparity or None, far_to_near), output, size)
        print(output)


@app.command()
def layers(
    source: Source,
    image: Picture = None,
    fov: Fov = None,
    disparity: Disparity = False,
    far_to_near: FarToNear = None,
    output: Annotated[Path, _output(help="File to write.")] = Path("layers.exr"),
    overwrite: Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """One layered EXR: RGBA, Z, mask.A, normals N, world position P and ambient occlusion AO."""
    with report_errors(debug):
        from .. import export

        export.check_target(output, overwrite=overwrite)
        export.write_passes(export.open_scene(source, image, fov, disparity or None, far_to_near), output)
        print(output)


@app.command()
def stereo(
    source: Source,
    image: Picture = None,
    fov: Fov = None,
    disparity: Disparity = False,
    far_to_near: FarToNear = None,
    layout: Annotated[
        str, typer.Option(help="side by side, half side by side, over under, half over under or anaglyph (red cyan).")
    ] = "side by side",
    baseline: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="Between the eyes, as a fraction of the distance to the screen.")
    ] = 0.03,
    left_is_picture: Annotated[
        bool, typer.Option("--left-is-picture", help="Keep the picture as the left eye.")
    ] = False,
    output: Annotated[Path, _output(help="Picture to write.")] = Path("stereo.png"),
    overwrite: Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """The picture as both eyes see it."""
    with report_errors(debug):
        from ...mforce_core.scene3d.stereo import CENTERED, LAYOUTS, LEFT_IS_PICTURE
        from .. import export

        if layout not in LAYOUTS:
            raise ValueError(f"--layout is one of: {', '.join(LAYOUTS)}.")
        export.check_target(output, overwrite=overwrite)
        eyes = LEFT_IS_PICTURE if left_is_picture else CENTERED
        scene = export.open_scene(source, image, fov, disparity or None, far_to_near)
        export.write_stereo(scene, output, layout, baseline, eyes)
        print(output)


@app.command()
def views(
    source: Source,
    image: Picture = None,
    fov: Fov = None,
    disparity: Disparity = False,
    far_to_near: FarToNear = None,
    path: Annotated[str, typer.Option(help="swing, orbit, dolly or spiral.")] = "orbit",
    frames: Annotated[int, typer.Option(min=1, max=4096, help="Length of the clip.")] = 48,
    amplitude: Annotated[float, typer.Option(min=0.0, max=5.0, help="How far, as a fraction of the distance.")] = 0.12,
    output: Annotated[Path, _output(help="Folder to make.")] = Path("views"),
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """The frames of a moved camera, and its path as .chan, transforms.json and, with usd-core, USD."""
    with report_errors(debug):
        from ...mforce_core.results.folder import MARKER, output_folder
        from .. import export
        from ..progress import progress_bar

        scene = export.open_scene(source, image, fov, disparity or None, far_to_near)
        with output_folder(output, overwrite=overwrite) as work, progress_bar("views") as advance:
            export.write_views(scene, work, path, frames, amplitude, advance)
            (work / MARKER).write_text("{}\n", encoding="utf-8")  # so that the folder may be replaced
        print(output)
