"""Node: MF Load Depth."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from comfy.ldm.colormap import turbo
from comfy_api.latest import UI, io
from torch import Tensor

from ..mforce_core.depth.files import SUFFIXES, read_depth
from ..mforce_core.depth.range import normalized_disparity
from ..mforce_core.release import FOV_DEGREES
from .encode_depth import DEPTH, DISPARITY
from .host.geometry import Geometry, make_geometry, match_image
from .host.image_fit import to_rgb

NAME = "MF Load Depth"
AUTO, AUTO_CHANNEL = "as the file says", "auto"

logger = logging.getLogger(__name__)


def depth_file_names() -> list[str]:
    """Files in ComfyUI's input folder that may be depth maps."""
    folder = Path(folder_paths.get_input_directory())
    return sorted(file.name for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())


class MFLoadDepth(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFLoadDepth",
            display_name=NAME,
            category="image",
            description=(
                "Load a depth map with all its precision: OpenEXR, NPY, NPZ, PFM, or a 16-bit or float PNG or TIFF,"
                " from ComfyUI's input folder. Zero, negative, infinite and NaN pixels, the 1e10 that renderers write"
                " where there is no surface, and pixels with an alpha of 0 are not valid. 8-bit pictures of depth are"
                " read as disparity."
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
                    options=depth_file_names(),
                    upload=io.UploadType.image,
                    tooltip=(
                        "A file in ComfyUI's input folder. Upload one with the button below or drop it on the node; for"
                        " files that were copied into the folder, press R. EXR needs: pip install OpenEXR."
                    ),
                ),
                io.Combo.Input(
                    "meaning",
                    options=[AUTO, DEPTH, DISPARITY],
                    default=AUTO,
                    tooltip=(
                        "What the numbers are. Files of MF Save Depth say it themselves; of others, depth is assumed."
                        " Choose disparity for inverse depth, where larger is nearer."
                    ),
                ),
                io.Float.Input(
                    "fov_degrees",
                    default=FOV_DEGREES,
                    min=1.0,
                    max=170.0,
                    step=0.5,
                    tooltip="Horizontal field of view of the camera, for everything that becomes 3D.",
                ),
                io.String.Input(
                    "exr_channel",
                    default=AUTO_CHANNEL,
                    advanced=True,
                    tooltip=(
                        "Channel or layer of an EXR file, such as Z, fog or ViewLayer.Depth.Z. auto takes one that is"
                        " named depth, else a lone Z, V, R or Y, and never normals, positions, motion or alpha. The log"
                        " says which."
                    ),
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture that belongs to the depth; it gives point clouds and meshes their colors.",
                ),
                io.Float.Input(
                    "far_to_near",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.5,
                    optional=True,
                    tooltip=(
                        "For disparity that was stretched to all levels, as depth estimators save it: how many times"
                        " farther black is than white. 0: 10 where a map looks stretched."
                    ),
                    advanced=True,
                ),
            ],
            outputs=[
                Geometry.Output(
                    display_name="geometry",
                    tooltip="Raw depth with mask, camera and picture, for To Point Cloud and core's MoGe nodes.",
                ),
                io.Image.Output(
                    display_name="depth",
                    tooltip="Depth as numbers in three equal channels, in the file's unit; not valid is 0.",
                ),
                io.Mask.Output(display_name="valid", tooltip="White where the file has a depth."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        if not folder_paths.exists_annotated_filepath(file):
            return f"{NAME}: there is no file {file} in ComfyUI's input folder; copy it there or choose another."
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, **others: Any) -> tuple[int, int]:
        status = os.stat(folder_paths.get_annotated_filepath(file))
        return status.st_mtime_ns, status.st_size

    @classmethod
    def execute(
        cls,
        file: str,
        meaning: str = AUTO,
        fov_degrees: float = FOV_DEGREES,
        exr_channel: str = AUTO_CHANNEL,
        image: Tensor | None = None,
        far_to_near: float = 0.0,
    ) -> io.NodeOutput:
        path = Path(folder_paths.get_annotated_filepath(file))
        channel = exr_channel.strip()
        try:
            read = read_depth(
                path,
                disparity=None if meaning == AUTO else meaning == DISPARITY,
                channel=None if channel in ("", AUTO_CHANNEL) else channel,
                far_to_near=far_to_near or None,
            )
        except (ValueError, ModuleNotFoundError) as error:
            raise ValueError(f"{NAME}: {str(error).replace(str(path), file)}") from error
        for note in read.notes:
            logger.info("%s: %s", NAME, note)
        numbers = torch.from_numpy(read.depth)[None]
        valid = torch.isfinite(numbers)
        maps = torch.where(valid, numbers, torch.zeros_like(numbers))

        near = normalized_disparity(maps, valid)
        if image is None:
            picture = near[..., None].expand(*maps.shape, 3).contiguous()
        else:
            picture = match_image(NAME, to_rgb(image), maps)
        device = comfy.model_management.intermediate_device()
        raw = maps[..., None].expand(*maps.shape, 3).contiguous()
        return io.NodeOutput(
            make_geometry(maps, valid, picture, fov_degrees),
            raw.to(device),
            valid.float().to(device),
            ui=UI.PreviewImage(turbo(near) * valid[..., None]),
        )
