"""Node: MF Save Camera."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import UI, io

from ..mforce_core.scene3d.camera_files import OPENCV, OPENGL, CameraPath, write_chan, write_json, write_usd
from .host.depth_files import output_paths, written
from .host.geometry import as_moge, geometry_cameras, geometry_depth
from .host.node import Node
from .host.notices import notice
from .host.shared_inputs import geometry_input

CHAN, JSON, USDA, USDC = "chan (Nuke)", "json (OpenGL matrices)", "usda", "usdc"
JSON_OPENCV = "json (OpenCV matrices)"
_SHIFTED = (
    "MF Save Camera: the lens is shifted or its pixels are not square, for which a .chan file has no place, so that"
    " what is added will not sit right; choose json or usda as the format."
)


class MFSaveCamera(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFSaveCamera",
            display_name="MF Save Camera",
            category="3d",
            description=(
                "Save the path of a camera through a clip of MF Render View, or the cameras of Depth Anything 3's"
                " views, for Nuke, Blender, Maya and Houdini, so that what is added there moves with the picture."
            ),
            search_aliases=[
                "modality forcing",
                "camera path",
                "export camera",
                "matchmove",
                "chan",
                "usd",
                "nuke",
                "maya",
                "blender",
                "transforms.json",
            ],
            inputs=[
                geometry_input(),
                io.String.Input(
                    "filename_prefix",
                    default="3d/camera",
                    tooltip=(
                        "Beginning of the file names in the output folder. %year%, %month%, %day%, %width% and %height%"
                        " are replaced by their values."
                    ),
                ),
                io.Combo.Input(
                    "format",
                    options=[CHAN, JSON, USDA, USDC, JSON_OPENCV],
                    default=CHAN,
                    tooltip=(
                        "chan: text for Nuke's Camera (rotation order ZXY) and Blender's importer. json: matrices from"
                        " the camera to the world in OpenGL's axes, as NeRF tools read transforms.json, or from the"
                        " world to the camera in OpenCV's. usda, usdc: a"
                        " camera for Maya, Houdini, Blender and Unreal; needs: pip install usd-core."
                    ),
                ),
                io.Int.Input(
                    "first_frame", default=1001, min=0, max=9_999_999, tooltip="Number of the clip's first frame."
                ),
                io.Float.Input(
                    "frames_per_second",
                    default=24.0,
                    min=1.0,
                    max=240.0,
                    step=1.0,
                    tooltip="For USD: the clip's speed.",
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=1e-6,
                    max=1e6,
                    step=0.1,
                    round=False,
                    tooltip="Units of the file in one of the depth: 100 turns meters into centimeters.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        geometry: dict[str, Any],
        filename_prefix: str,
        format: str,
        first_frame: int,
        frames_per_second: float,
        scale: float,
    ) -> io.NodeOutput:
        geometry = as_moge(geometry)
        depth, _ = geometry_depth(geometry)
        count, height, width = depth.shape
        places = geometry.get("extrinsics", torch.eye(4).expand(count, 4, 4)).clone()
        places[:, :3, 3] *= scale
        cameras = CameraPath(geometry_cameras(geometry, depth, 0.0), places, (height, width))
        ending = format.split(" ")[0]
        (path,), subfolder = output_paths(filename_prefix, ending, depth[:1])
        with written(path) as partial:
            if format == CHAN:
                if not cameras.centered:
                    notice(_SHIFTED)
                write_chan(partial, cameras, first_frame)
            elif format in (JSON, JSON_OPENCV):
                axes = OPENGL if format == JSON else OPENCV
                write_json(partial, cameras, first_frame, path.stem, axes)
            else:
                write_usd(partial, cameras, first_frame, frames_per_second)
        return io.NodeOutput(ui={"files": [UI.SavedResult(path.name, subfolder, io.FolderType.output)]})
