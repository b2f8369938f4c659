"""Node: MF Save Depth."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import UI, io
from torch import Tensor

from ..mforce_core.depth.files import LEVELS
from .host.depth_files import AS_DEPTH, AS_NORMALIZED, FORMATS, MEANINGS, PNG, depth_paths, encode_values, write_depth
from .host.depth_pictures import preview
from .host.geometry import DA3Geometry, Geometry, raw_depth
from .host.images import looks_stretched
from .host.node import Node
from .host.notices import notice
from .host.progress import with_progress
from .host.shared_inputs import FILES, SEQUENCE, distance_input, numbering_inputs, valid_input

_PICTURE = (
    "MF Save Depth: depth is a gray picture with numbers from 0 to 1, and is saved as distances, in which far is"
    " bright. If near is bright in it, as in a map for ControlNet, put MF Depth to Geometry before it and set meaning"
    " to disparity."
)


class MFSaveDepth(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFSaveDepth",
            display_name="MF Save Depth",
            category="image",
            description=(
                "Save depth maps as numbers, for compositing, 3D and other programs. EXR: 32-bit float in channel Z, R"
                " or RGB, with the mask of valid pixels as alpha. NPY: float32, NaN where not valid. PNG: 16 bits, 0"
                " where not valid; the scale is stored in its text, and MF Load Depth applies it. TIFF: 32-bit float, 0"
                " where not valid. A batch becomes single files or a sequence."
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
                        "Beginning of the file names in the output folder. %year%, %month%, %day%, %width%, %height%"
                        " and %batch_num% are replaced by their values."
                    ),
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default=PNG,
                    tooltip=(
                        "png: opens in every program, 65535 steps. exr: full precision, for Nuke, Blender, Houdini and"
                        " similar programs; needs: pip install OpenEXR. npy: full precision, for Python. tiff: full"
                        " precision, for Photoshop, After Effects and GIS programs."
                    ),
                ),
                io.Combo.Input(
                    "values",
                    options=list(MEANINGS),
                    default=AS_DEPTH,
                    tooltip=(
                        "depth: distance along the viewing axis, in the unit it has. disparity: its inverse, near is"
                        " large. normalised: 0 at near and 1 at far; a valid pixel is at least 1/65535."
                    ),
                ),
                distance_input("near", "For normalised: the depth that becomes 0. 0: the nearest of the whole batch."),
                distance_input("far", "For normalised: the depth that becomes 1. 0: the farthest of the whole batch."),
                io.Combo.Input(
                    "exr_channel",
                    options=["Z", "R", "RGB"],
                    default="Z",
                    advanced=True,
                    tooltip="For exr: Z is what compositors read as depth; R or RGB is for programs that see colors.",
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
                        "For png: the size of one of the 65535 steps; 0.001 turns meters into millimeters, as RGB-D"
                        " tools expect. 0: chosen so that the farthest pixel gets the last step."
                    ),
                ),
                valid_input(),
                *numbering_inputs(),
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
        numbering: str = FILES,
        first_frame: int = 1001,
    ) -> io.NodeOutput:
        if isinstance(depth, Tensor) and looks_stretched(depth):
            notice(_PICTURE)
        maps, usable = raw_depth(depth, valid)
        if not usable.any():
            raise ValueError("no pixel is valid, so there is nothing to save; check depth and valid.")
        numbers, encoding = encode_values(maps, usable, values, near, far)
        step = 1 / LEVELS if values == AS_NORMALIZED else png_step or None
        paths, subfolder = depth_paths(filename_prefix, format, maps, first_frame if numbering == SEQUENCE else None)
        for path, one in zip(with_progress(paths), numbers, strict=True):
            write_depth(path, one, encoding, format, channel=exr_channel, step=step, hidden=cls.hidden)
        saved = [UI.SavedResult(path.name, subfolder, io.FolderType.output) for path in paths]
        return io.NodeOutput(ui={**UI.PreviewImage(preview(maps, usable)).as_dict(), "depth_files": saved})
