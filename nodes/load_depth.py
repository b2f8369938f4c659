"""Node: MF Load Depth."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import numpy as np
import torch
from comfy_api.latest import UI, io
from torch import Tensor

from ..mforce_core.depth.files import read_depth
from ..mforce_core.depth.range import normalized_disparity
from ..mforce_core.depth.sequences import MISSING, STOP, choose_frames, frame_numbers, is_pattern
from ..mforce_core.release import FOV_DEGREES
from .host.depth_files import input_depth_files
from .host.depth_pictures import preview
from .host.geometry import make_geometry
from .host.images import gray_image, match_image, to_rgb
from .host.node import Node
from .host.progress import with_progress
from .host.shared_inputs import DEPTH, DISPARITY, fov_input, geometry_output, picture_of_depth_input

AUTO, AUTO_CHANNEL = "as the file says", "auto"

logger = logging.getLogger(__name__)


class MFLoadDepth(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFLoadDepth",
            display_name="MF Load Depth",
            category="image",
            description=(
                "Load a depth map, or a sequence of them, at full precision: OpenEXR, NPY, NPZ, PFM, or a 16-bit or"
                " float PNG or TIFF from ComfyUI's input folder. Pixels that are zero, negative, infinite, NaN or fully"
                " transparent are not valid, nor is the 1e10 that renderers write where there is no surface. 8-bit"
                " pictures of depth are read as disparity."
            ),
            search_aliases=[
                "modality forcing",
                "load exr",
                "load npy",
                "16-bit depth",
                "z depth",
                "import depth",
                "depth pass",
            ],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=input_depth_files(),
                    upload=io.UploadType.image,
                    tooltip=(
                        "A file in ComfyUI's input folder or a folder in it; name.####.exr is a sequence. Upload one"
                        " with the button below, or drop it on the node; press R to find files that were copied into"
                        " the folder. EXR needs: pip install OpenEXR."
                    ),
                ),
                io.Combo.Input(
                    "meaning",
                    options=[AUTO, DEPTH, DISPARITY],
                    default=AUTO,
                    tooltip=(
                        "What the numbers are. Files of MF Save Depth say so themselves; of the others, 8-bit pictures"
                        " are taken as disparity and the rest as depth. Choose disparity for inverse depth, where"
                        " larger is nearer."
                    ),
                ),
                fov_input(),
                io.String.Input(
                    "exr_channel",
                    default=AUTO_CHANNEL,
                    advanced=True,
                    tooltip=(
                        "Channel or layer of an EXR file, such as Z, fog or ViewLayer.Depth.Z. auto takes one that is"
                        " named depth, else a single Z, V, R or Y, and never normals, positions, motion or alpha. The"
                        " log says which."
                    ),
                ),
                picture_of_depth_input(),
                io.Float.Input(
                    "far_to_near",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.5,
                    optional=True,
                    tooltip=(
                        "For disparity that was stretched to the full range, as depth estimators save it: how many"
                        " times farther away black is than white. 0: 10 if a map looks stretched."
                    ),
                    advanced=True,
                ),
                _frame("first_frame", "first", "from the beginning"),
                _frame("last_frame", "last", "to the end"),
                io.Combo.Input(
                    "missing_frames",
                    options=list(MISSING),
                    default=STOP,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "For a sequence with frames that are not there. stop: say which. hold: the frame before stands"
                        " in. skip: leave them out; the clip gets shorter."
                    ),
                ),
            ],
            outputs=[
                geometry_output(),
                io.Image.Output(
                    display_name="depth",
                    tooltip="Depth as numbers in three equal channels, in the file's unit; invalid pixels are 0.",
                ),
                io.Mask.Output(display_name="valid", tooltip="White where the file has a depth."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        if is_pattern(file):
            found = bool(frame_numbers(Path(folder_paths.get_annotated_filepath(file))))
        else:
            found = folder_paths.exists_annotated_filepath(file)
            found = found and os.path.isfile(folder_paths.get_annotated_filepath(file))
        if not found:
            return f"MF Load Depth: there is no file {file} in ComfyUI's input folder; copy it there or choose another."
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, **others: Any) -> list[tuple[str, int, int]]:
        path = Path(folder_paths.get_annotated_filepath(file))
        files = frame_numbers(path).values() if is_pattern(file) else [path]
        states = ((one.name, one.stat()) for one in files)
        return [(name, state.st_mtime_ns, state.st_size) for name, state in states]

    @classmethod
    def execute(
        cls,
        file: str,
        meaning: str = AUTO,
        fov_degrees: float = FOV_DEGREES,
        exr_channel: str = AUTO_CHANNEL,
        image: Tensor | None = None,
        far_to_near: float = 0.0,
        first_frame: int = -1,
        last_frame: int = -1,
        missing_frames: str = STOP,
    ) -> io.NodeOutput:
        path = Path(folder_paths.get_annotated_filepath(file))
        channel = exr_channel.strip()
        maps_read: list[np.ndarray] = []
        try:
            paths = [path]
            if is_pattern(file):
                first, last = (None if frame < 0 else frame for frame in (first_frame, last_frame))
                frames = choose_frames(path, first, last, missing_frames)
                paths = list(frames.paths)
                for note in frames.notes:
                    logger.warning("MF Load Depth: %s", note)
            for one in with_progress(paths):
                read = read_depth(
                    one,
                    disparity=None if meaning == AUTO else meaning == DISPARITY,
                    channel=None if channel in ("", AUTO_CHANNEL) else channel,
                    far_to_near=far_to_near or None,
                )
                for note in read.notes:
                    logger.info("MF Load Depth: %s", note)
                if maps_read and read.depth.shape != maps_read[0].shape:
                    (rows, columns), (height, width) = read.depth.shape, maps_read[0].shape
                    raise ValueError(f"{one.name} is {columns}x{rows}, but {paths[0].name} is {width}x{height}.")
                maps_read.append(read.depth)
        except (ValueError, ModuleNotFoundError) as error:
            raise ValueError(str(error).replace(str(path), file).replace(f"{path.parent}{os.sep}", "")) from error
        numbers = torch.from_numpy(np.stack(maps_read))
        valid = torch.isfinite(numbers)
        maps = torch.where(valid, numbers, torch.zeros_like(numbers))
        picture = gray_image(normalized_disparity(maps, valid)) if image is None else match_image(to_rgb(image), maps)
        device = comfy.model_management.intermediate_device()
        return io.NodeOutput(
            make_geometry(maps, valid, picture, fov_degrees),
            gray_image(maps).to(device),
            valid.float().to(device),
            ui=UI.PreviewImage(preview(maps, valid)),
        )


def _frame(name: str, which: str, otherwise: str) -> io.Input:
    return io.Int.Input(
        name,
        default=-1,
        min=-1,
        max=9_999_999,
        optional=True,
        advanced=True,
        tooltip=f"For a sequence: the number of its {which} frame. -1: {otherwise}.",
    )
