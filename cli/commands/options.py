"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...mforce_core.release import SAMPLERS, STEPS
from ...mforce_core.settings import (
    ALL_BUILT_IN,
    FAST_SAMPLER,
    FAST_SIGMA,
    FAST_STEPS,
    PAIR_STRENGTH,
    STRENGTH,
    TILE_STRENGTH,
    check_grid,
)

SAMPLING, INPUT, TILES, CLOUD, FILES = "Sampling", "Input", "Full size", "Point cloud", "Model and files"

Steps = Annotated[int, typer.Option(help="Denoising steps.", rich_help_panel=SAMPLING)]
StepsOfModel = Annotated[
    int | None,
    typer.Option(
        help=f"Denoising steps. Default: {STEPS}, or those of a model of few steps.",
        min=1,
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
DepthSteps = Annotated[int, typer.Option(help=f"Denoising steps; the release takes {STEPS}.", rich_help_panel=SAMPLING)]
Cfg = Annotated[
    float | None,
    typer.Option(
        help="Classifier-free guidance; above 1 follows the prompt harder and takes twice as long. "
        "Default: 4 (joint, d2i), 1 (i2d).",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(help="Scale for models that embed one.", show_default=False, rich_help_panel=SAMPLING),
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same picture.", rich_help_panel=SAMPLING)]
Count = Annotated[
    int,
    typer.Option(help="How many, with consecutive seeds, each in a folder of its own.", rich_help_panel=SAMPLING),
]
Tilt = Annotated[
    float,
    typer.Option(
        help="log2 of alpha: above 0 the image resolves before the depth, 0 both together, below 0 depth first.",
        rich_help_panel=SAMPLING,
    ),
]
PathOption = Annotated[
    str | None,
    typer.Option(
        "--path",
        metavar="PATH",
        help='The way of the noise levels: "tilt log2_alpha=5", "finish rgb_by=0.6", "points 1,1 0.3,0.9 0,0", '
        '"shifts mu=1.1 depth_mu=0.5", "tilt restart=0.8,0.5,2", or JSON; see docs/concepts/paths.md.',
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
Follow = Annotated[
    float | None,
    typer.Option(
        help="How strictly what is given is followed, as log2 of alpha: -14 strictly, -5 loosely, 3 hardly. "
        "Default: as it is.",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
StartImage = Annotated[
    Path | None,
    typer.Option(
        help="Picture to start from, instead of noise: image to image.", show_default=False, rich_help_panel=INPUT
    ),
]
StartDepth = Annotated[
    Path | None,
    typer.Option(
        help="Depth map to start from, instead of noise: depth to depth.", show_default=False, rich_help_panel=INPUT
    ),
]
StartStrength = Annotated[
    float | None,
    typer.Option(
        "--strength",
        help=f"Noise on what a --start-... gives: 0.2 changes little, 0.9 nearly all. Default: {STRENGTH}.",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
Ensemble = Annotated[
    int,
    typer.Option(
        help="Take the median of so many depth maps, and save where they disagree as depth_spread.",
        rich_help_panel=SAMPLING,
    ),
]
AlignShift = Annotated[
    bool,
    typer.Option("--align-shift", help="Align the maps of an ensemble by an offset, too.", rich_help_panel=SAMPLING),
]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast",
        help=f"A fourth of the time for nearly the same picture: --steps {FAST_STEPS} --sampler {FAST_SAMPLER} and "
        f"sigma={FAST_SIGMA} in the path.",
        rich_help_panel=SAMPLING,
    ),
]
Sampler = Annotated[str, typer.Option(help=f"Solver of the steps: {', '.join(SAMPLERS)}.", rich_help_panel=SAMPLING)]
CfgInterval = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH",
        help="Noise levels with guidance, for example 0.2,1: steps outside cost half. Default: all.",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
CfgRescale = Annotated[
    float,
    typer.Option(help="0 to 1: take back the contrast that guidance adds.", rich_help_panel=SAMPLING),
]
CfgParallel = Annotated[
    float,
    typer.Option(help="0 to 1: how much of guidance may make colors stronger.", rich_help_panel=SAMPLING),
]
BlockCache = Annotated[
    float,
    typer.Option(
        help="Reuse what most blocks add while the first one's part changes by no more than this share: faster, and "
        "near the exact result, which 0 gives.",
        rich_help_panel=SAMPLING,
    ),
]
RefineDepth = Annotated[
    bool,
    typer.Option(
        "--refine-depth", help="Sample the depth once more from the finished image.", rich_help_panel=SAMPLING
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="WxH",
        help="Working size in pixels, multiples of 16. Default: what the model was trained for.",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
Fit = Annotated[
    str,
    typer.Option(
        help="A picture of another shape: pad letterboxes it (margins are cut off again), crop cuts its middle.",
        rich_help_panel=INPUT,
    ),
]
FullSize = Annotated[
    bool,
    typer.Option(
        "--full-size",
        help="Depth at the picture's own size with edges as fine as the picture's: refined by the model in tiles.",
        rich_help_panel=TILES,
    ),
]
Enlarge = Annotated[
    float,
    typer.Option(
        help="Make picture and depth so many times larger on a side, with details that are sampled in tiles.",
        rich_help_panel=TILES,
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        help="Side of the tiles in pixels. Default: the size that the model works at.",
        show_default=False,
        rich_help_panel=TILES,
    ),
]
Overlap = Annotated[float, typer.Option(help="Share of a tile that the next one covers, too.", rich_help_panel=TILES)]
TileStrength = Annotated[
    float | None,
    typer.Option(
        help="Noise level that tiles start at: higher makes more anew, lower keeps more of what was enlarged. "
        f"Default: {TILE_STRENGTH} for --full-size, {PAIR_STRENGTH} for --enlarge.",
        show_default=False,
        rich_help_panel=TILES,
    ),
]
FAR_TO_NEAR = (
    "Of disparity that was stretched to all levels: how many times farther its darkest pixel is than its brightest. "
    "Default: 10 where a map looks stretched."
)
Fov = Annotated[
    float, typer.Option(help="Horizontal field of view of the saved picture, degrees.", rich_help_panel=CLOUD)
]
EdgeThreshold = Annotated[
    float | None,
    typer.Option(
        help="Leave out points where depth jumps by more than this fraction within 3x3 pixels. Default: 0.04 "
        "as in the release from 512 pixels on, and more in smaller pictures.",
        show_default=False,
        rich_help_panel=CLOUD,
    ),
]
RemoveOutliers = Annotated[
    bool,
    typer.Option(
        "--remove-outliers",
        help="Leave out points that are unusually far from their neighbors.",
        rich_help_panel=CLOUD,
    ),
]
Also = Annotated[
    str | None,
    typer.Option(
        help="More depth files, separated by commas: npz (with mask and camera), pfm, tiff (32-bit float), tiff16.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Model = Annotated[
    str,
    typer.Option(help="Release folder or .safetensors file; nano and nano-fast are built in.", rich_help_panel=FILES),
]
TextEncoder = Annotated[
    Path | None,
    typer.Option(
        help="Folder with Qwen3 (8B for the release), for models without a text encoder of their own.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Vae = Annotated[
    Path | None,
    typer.Option(
        help="FLUX.2 autoencoder, file or folder, where it is not beside the model.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Folder to make. Default: the next free mforce_out/NAME-001.",
        show_default=False, rich_help_panel=FILES,
    ),
]  # fmt: skip
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an output folder of mforce.", rich_help_panel=FILES)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps...", rich_help_panel=FILES)]
Dtype = Annotated[
    str,
    typer.Option(
        help="float32, bfloat16 or auto: float32 for small models on a CPU, bfloat16 otherwise.",
        rich_help_panel=FILES,
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the model with torch.compile: minutes at the first step, faster steps after it.",
        rich_help_panel=FILES,
    ),
]
CudaGraph = Annotated[
    bool,
    typer.Option(
        "--cuda-graph",
        help="Launch every step as one CUDA graph: faster where a small model keeps a GPU waiting.",
        rich_help_panel=FILES,
    ),
]
Devices = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda, or several: cuda:0,cuda:1.", rich_help_panel=FILES),
]
Ray = Annotated[
    int,
    typer.Option(
        "--ray", help="Work with this many Ray actors, on this machine or a cluster.", min=0, rich_help_panel=FILES
    ),
]
RayGpus = Annotated[float, typer.Option(help="GPUs that Ray sets aside for an actor.", min=0, rich_help_panel=FILES)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=FILES)]


def model_files(model: str, text_encoder: Path | None, vae: Path | None) -> dict[str, Any]:
    """Settings of the model's files, absolute, so that a rerun or a process in another folder finds them."""
    return {
        "model": model if model in ALL_BUILT_IN else str(Path(model).absolute()),
        "text_encoder": None if text_encoder is None else str(text_encoder.absolute()),
        "vae": None if vae is None else str(vae.absolute()),
    }


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``"512x384"`` -> (512, 384), width first; ``"512"`` is a square."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--size must look like 512x384 (width x height), got {text!r}.")
    width, height = int(parts[0]), int(parts[-1])
    check_grid(width, height)
    return width, height


def whole_numbers(option: str, text: str, least: int) -> list[int]:
    """``"2, 4"`` -> [2, 4], for an option such as ``--factors``, from ``least`` on."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= least for part in parts):
        raise ValueError(f"{option} are whole numbers from {least} on, separated by commas, got {text!r}.")
    return [int(part) for part in parts]


def parse_devices(text: str) -> tuple[str, ...]:
    """``"cuda:0,cuda:1"`` -> ("cuda:0", "cuda:1"); "auto" becomes the device that it stands for."""
    from ...mforce_core.device import choose_device  # PyTorch comes late: help is shown without it

    return tuple(choose_device(device.strip()) for device in text.split(","))


def parse_interval(text: str | None) -> tuple[float, float] | None:
    """``"0.2,1"`` -> (0.2, 1.0)."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--cfg-interval must be two noise levels such as 0.2,1, got {text!r}.") from None
    return low, high
