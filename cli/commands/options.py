"""Options that several commands share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ...mforce_core.release import SAMPLERS, STEPS
from ...mforce_core.settings import (
    FAST_SAMPLER,
    FAST_SIGMA,
    FAST_STEPS,
    PAIR_STRENGTH,
    STRENGTH,
    TILE_STRENGTH,
)

# One for each panel of the help.
sampling_option = partial(typer.Option, rich_help_panel="Sampling")
input_option = partial(typer.Option, rich_help_panel="Input")
_tiles = partial(typer.Option, rich_help_panel="Full size")
_cloud = partial(typer.Option, rich_help_panel="Point cloud")
_files = partial(typer.Option, rich_help_panel="Model and files")

Steps = Annotated[int, sampling_option(help="Denoising steps.")]
StepsOfModel = Annotated[
    int | None, sampling_option(help=f"Denoising steps. Default: {STEPS}, or those of a model of few steps.", min=1)
]
DepthSteps = Annotated[int, sampling_option(help=f"Denoising steps; the release takes {STEPS}.")]
Cfg = Annotated[
    float | None,
    sampling_option(
        help="Classifier-free guidance; above 1 follows the prompt harder and takes twice as long. "
        "Default: 4 (joint, d2i), 1 (i2d)."
    ),
]
Guidance = Annotated[float | None, sampling_option(help="Scale for models that embed one.")]
Seed = Annotated[int, sampling_option(help="The same seed gives the same picture.")]
Count = Annotated[int, sampling_option(help="How many, with consecutive seeds, each in a folder of its own.")]
Tilt = Annotated[
    float,
    sampling_option(
        help="log2 of alpha: above 0 the image resolves before the depth, 0 both together, below 0 depth first."
    ),
]
PathOption = Annotated[
    str | None,
    sampling_option(
        "--path",
        metavar="PATH",
        help='The way of the noise levels: "tilt log2_alpha=5", "finish rgb_by=0.6", "points 1,1 0.3,0.9 0,0", '
        '"shifts mu=1.1 depth_mu=0.5", "tilt restart=0.8,0.5,2", or JSON; see docs/concepts/paths.md.',
    ),
]
Follow = Annotated[
    float | None,
    sampling_option(
        help="How strictly what is given is followed, as log2 of alpha: -14 strictly, -5 loosely, 3 hardly. "
        "Default: as it is."
    ),
]
StartImage = Annotated[Path | None, input_option(help="Picture to start from, instead of noise: image to image.")]
StartDepth = Annotated[Path | None, input_option(help="Depth map to start from, instead of noise: depth to depth.")]
StartStrength = Annotated[
    float | None,
    sampling_option(
        "--strength",
        help=f"Noise on what a --start-... gives: 0.2 changes little, 0.9 nearly all. Default: {STRENGTH}.",
    ),
]
Ensemble = Annotated[
    int, sampling_option(help="Take the median of so many depth maps, and save where they disagree as depth_spread.")
]
AlignShift = Annotated[bool, sampling_option("--align-shift", help="Align the maps of an ensemble by an offset, too.")]
Fast = Annotated[
    bool,
    sampling_option(
        "--fast",
        help=f"A fourth of the time for nearly the same picture: --steps {FAST_STEPS} --sampler {FAST_SAMPLER} and "
        f"sigma={FAST_SIGMA} in the path. A model of few steps keeps its own.",
    ),
]
Sampler = Annotated[str, sampling_option(help=f"Solver of the steps: {', '.join(SAMPLERS)}.")]
CfgInterval = Annotated[
    str | None,
    sampling_option(
        metavar="LOW,HIGH", help="Noise levels with guidance, for example 0.2,1: steps outside cost half. Default: all."
    ),
]
CfgRescale = Annotated[float, sampling_option(help="0 to 1: take back the contrast that guidance adds.")]
CfgParallel = Annotated[float, sampling_option(help="0 to 1: how much of guidance may make colors stronger.")]
BlockCache = Annotated[
    float,
    sampling_option(
        help="Reuse what most blocks add while the first one's part changes by no more than this share: faster, and "
        "near the exact result, which 0 gives."
    ),
]
RefineDepth = Annotated[
    bool, sampling_option("--refine-depth", help="Sample the depth once more from the finished image.")
]
Size = Annotated[
    str | None,
    sampling_option(
        metavar="WxH", help="Working size in pixels, multiples of 16. Default: what the model was trained for."
    ),
]
Fit = Annotated[
    str,
    input_option(
        help="A picture of another shape: pad letterboxes it (margins are cut off again), crop cuts its middle."
    ),
]
FullSize = Annotated[
    bool,
    _tiles(
        "--full-size",
        help="Depth at the picture's own size with edges as fine as the picture's: refined by the model in tiles.",
    ),
]
Enlarge = Annotated[
    float, _tiles(help="Make picture and depth so many times larger on a side, with details that are sampled in tiles.")
]
Tile = Annotated[int | None, _tiles(help="Side of the tiles in pixels. Default: the size that the model works at.")]
Overlap = Annotated[float, _tiles(help="Share of a tile that the next one covers, too.")]
TileStrength = Annotated[
    float | None,
    _tiles(
        help="Noise level that tiles start at: higher makes more anew, lower keeps more of what was enlarged. "
        f"Default: {TILE_STRENGTH} for --full-size, {PAIR_STRENGTH} for --enlarge."
    ),
]
FAR_TO_NEAR = (
    "Of disparity that was stretched to all levels: how many times farther its darkest pixel is than its brightest. "
    "Default: 10 where a map looks stretched."
)
Fov = Annotated[float, _cloud(help="Horizontal field of view of the saved picture, degrees.")]
EdgeThreshold = Annotated[
    float | None,
    _cloud(
        help="Leave out points where depth jumps by more than this fraction within 3x3 pixels. Default: 0.04 "
        "as in the release from 512 pixels on, and more in smaller pictures."
    ),
]
RemoveOutliers = Annotated[
    bool, _cloud("--remove-outliers", help="Leave out points that are unusually far from their neighbors.")
]
Also = Annotated[
    str | None,
    _files(help="More depth files, separated by commas: npz (with mask and camera), pfm, tiff (32-bit float), tiff16."),
]
Model = Annotated[str, _files(help="Release folder or .safetensors file; nano and nano-fast are built in.")]
TextEncoder = Annotated[
    Path | None, _files(help="Folder with Qwen3 (8B for the release), for models without a text encoder of their own.")
]
Vae = Annotated[Path | None, _files(help="FLUX.2 autoencoder, file or folder, where it is not beside the model.")]
Output = Annotated[
    Path | None, _files("--output", "-o", help="Folder to make. Default: the next free mforce_out/NAME-001.")
]
Overwrite = Annotated[bool, _files("--overwrite", help="Replace an output folder of mforce.")]
Device = Annotated[str, _files(help="auto, cpu, cuda, cuda:1, mps...")]
Dtype = Annotated[str, _files(help="float32, bfloat16 or auto: float32 for small models on a CPU, bfloat16 otherwise.")]
Compile = Annotated[
    bool,
    _files("--compile", help="Compile the model with torch.compile: minutes at the first step, faster steps after it."),
]
CudaGraph = Annotated[
    bool,
    _files("--cuda-graph", help="Launch every step as one CUDA graph: faster where a small model keeps a GPU waiting."),
]
Devices = Annotated[str, _files("--device", help="auto, cpu, cuda, or several: cuda:0,cuda:1.")]
Ray = Annotated[int, _files("--ray", help="Work with this many Ray actors, on this machine or a cluster.", min=0)]
RayGpus = Annotated[float, _files(help="GPUs that Ray sets aside for an actor.", min=0)]
Debug = Annotated[bool, _files("--debug", help="Show the traceback of an error.")]
