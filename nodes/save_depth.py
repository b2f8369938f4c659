"""Node: MF Save Depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy.cli_args import args
from comfy.ldm.colormap import turbo
from comfy_api.latest import UI, io
from torch import Tensor

from ..mforce_core.depth.files import LEVELS, Encoding, write_16_bit, write_exr, write_npy
from ..mforce_core.depth.range import normalized_disparity, percentile_range, stretch
from .host.geometry import DA3Geometry, Geometry, distance_input, raw_depth

NAME = "MF Save Depth"
PNG, EXR, NPY = "png (16-bit)", "exr", "npy"
DEPTH, DISPARITY, NORMALIZED = "depth", "disparity (1 / depth)", "normalised (near 0, far 1)"


class MFSaveDepth(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFSaveDepth",
            display_name=NAME,
            category="image",
            description=(
                "Save depth maps as numbers, for compositing, 3D and other programs. EXR: 32-bit float in channel Z, R"
                " or RGB, with the mask of valid pixels as alpha. NPY: float32, NaN where not valid. PNG: 16 bits, 0"
                " where not valid; the scale is in its text and MF Load Depth applies it."
            ),
            search_aliases=[
                "modality forcing",
                "save exr",
                "save npy",
                "16-bit depth",
                "z depth",
                "export depth",
                "depth pass",
                "nuke",
                "blender",
            ],
            inputs=[
                io.MultiType.Input(
                    "depth",
                    types=[Geometry, DA3Geometry, io.Image],
                    tooltip="A geometry, or an IMAGE that holds raw depth. Each map of a batch becomes a file.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="depth/ComfyUI",
                    tooltip=(
                        "Start of the file names in the output folder. %year%, %month%, %day%, %width% and %height% are"
                        " filled in."
                    ),
                ),
                io.Combo.Input(
                    "format",
                    options=[PNG, EXR, NPY],
                    default=PNG,
                    tooltip=(
                        "png: every program opens it, 65535 steps. exr: full precision, for Nuke, Blender, Houdini and"
                        " the like; needs: pip install OpenEXR. npy: full precision, for Python."
                    ),
                ),
                io.Combo.Input(
                    "values",
                    options=[DEPTH, DISPARITY, NORMALIZED],
                    default=DEPTH,
                    tooltip=(
                        "depth: distance along the view, in the unit it has. disparity: its inverse, near is large."
                        " normalised: 0 at near and 1 at far; 1/65535 is the least that a valid pixel gets."
                    ),
                ),
                distance_input("near", "For normalised: depth that becomes 0. 0: the nearest of the whole batch."),
                distance_input("far", "For normalised: depth that becomes 1. 0: the farthest of the whole batch."),
                io.Combo.Input(
                    "exr_channel",
                    options=["Z", "R", "RGB"],
                    default="Z",
                    advanced=True,
                    tooltip="For exr: Z is what compositors take for depth; R or RGB is for programs that see colors.",
                ),
                io.Float.Input(
                    "png_step",
                    default=0.0,
                    min=0.0,
                    max=1e6,
                    step=0.0001,
                    round=False,
                    advanced=True,
                    tooltip=(
                        "For png: how much one of the 65535 steps is; 0.001 gives millimeters from meters, as RGB-D"
                        " tools expect. 0: so that the farthest pixel takes the last step."
                    ),
                ),
                io.Mask.Input(
                    "valid",
                    optional=True,
                    tooltip="White where the depth is known. Without it every positive, finite pixel counts.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        depth: Any,
        filename_prefix: str,
        format: str,
        values: str,
        near: float,
        far: float,
        exr_channel: str = "Z",
        png_step: float = 0.0,
        valid: Tensor | None = None,
    ) -> io.NodeOutput:
        maps, usable = raw_depth(NAME, depth, valid)
        if not usable.any():
            raise ValueError(f"{NAME}: no pixel is valid, so there is nothing to save; check depth and valid.")
        numbers, encoding = encode_values(maps, usable, values, near, far)
        texts = provenance(cls.hidden)
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), maps.shape[2], maps.shape[1]
        )
        saved = []
        for index, one in enumerate(numbers.numpy()):
            ending = "png" if format == PNG else format
            file = f"{name.replace('%batch_num%', str(index))}_{counter + index:05}.{ending}"
            path = Path(folder) / file
            try:
                if format == EXR:
                    write_exr(path, one, encoding, channel=exr_channel, attributes=texts)
                elif format == NPY:
                    write_npy(path, one)
                else:
                    step = 1 / LEVELS if values == NORMALIZED else png_step or None
                    write_16_bit(path, one, encoding, step=step, text=texts)
            except ModuleNotFoundError as error:
                raise ValueError(f"{NAME}: {error} Or choose png or npy as the format.") from error
            saved.append(UI.SavedResult(file, subfolder, io.FolderType.output))
        picture = turbo(normalized_disparity(maps, usable)) * usable[..., None]
        return io.NodeOutput(ui={**UI.PreviewImage(picture).as_dict(), "depth_files": saved})


def encode_values(maps: Tensor, usable: Tensor, values: str, near: float, far: float) -> tuple[Tensor, Encoding]:
    """Depth (B, H, W) as the numbers of a file, NaN where not usable, and what they mean.

    Raises:
        ValueError: no room between near and far.
    """
    missing = torch.full_like(maps, torch.nan)
    if values == DEPTH:
        return torch.where(usable, maps, missing), Encoding()
    if values == DISPARITY:
        return torch.where(usable, 1.0 / maps, missing), Encoding(disparity=True)
    nearest, farthest = percentile_range(maps, usable, 0.0, together=True)[0].tolist()
    near, far = near or nearest, far or farthest
    if not near < far:
        raise ValueError(f"{NAME}: near is {near:g} and far is {far:g}; far must be the larger one.")
    limits = torch.tensor([[near, far]], dtype=maps.dtype).expand(len(maps), 2)
    # 0 is kept for pixels without depth.
    scaled = stretch(maps, usable, limits).clamp(min=1 / LEVELS)
    return torch.where(usable, scaled, missing), Encoding(scale=far - near, offset=near)


def provenance(hidden: Any) -> dict[str, str]:
    """The prompt and the workflow, as core stores them in pictures; nothing under --disable-metadata."""
    if args.disable_metadata or hidden is None:
        return {}
    found = {} if hidden.prompt is None else {"prompt": hidden.prompt}
    return {key: json.dumps(value) for key, value in {**found, **(hidden.extra_pnginfo or {})}.items()}
