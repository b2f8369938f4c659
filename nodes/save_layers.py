"""Node: MF Save Layered EXR."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import UI, io
from torch import Tensor

from ..mforce_core.depth.layered_exr import Layers, write_layers
from .host.depth_files import output_paths, provenance, written
from .host.geometry import as_moge, geometry_cameras, geometry_depth, needed_pictures
from .host.images import resize_image
from .host.node import Node
from .host.passes import occlusion_radius_input, passes_of
from .host.progress import with_progress
from .host.shared_inputs import FILES, SEQUENCE, geometry_input, numbering_inputs, other_fov_input


class MFSaveLayers(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFSaveLayers",
            display_name="MF Save Layered EXR",
            category="image",
            description=(
                "Picture, depth and passes in one OpenEXR file that Nuke, Blender, Fusion and After Effects open as it"
                " is: RGBA in linear light, Z, mask.A where depth is valid, and on request N (normals), P (world"
                " position) and AO. Needs: pip install OpenEXR."
            ),
            search_aliases=[
                "modality forcing",
                "multilayer exr",
                "multichannel exr",
                "save exr",
                "aov",
                "nuke",
                "blender",
                "compositing",
                "rgbz",
            ],
            inputs=[
                geometry_input(),
                io.String.Input(
                    "filename_prefix",
                    default="depth/layers",
                    tooltip=(
                        "Beginning of the file names in the output folder. %year%, %month%, %day%, %width%, %height%"
                        " and %batch_num% are replaced by their values."
                    ),
                ),
                io.Boolean.Input("normals", default=True, tooltip="N.X, N.Y, N.Z: x right, y up, z toward the camera."),
                io.Boolean.Input("position", default=False, tooltip="P.X, P.Y, P.Z: places in the world, y up."),
                io.Boolean.Input("ambient_occlusion", default=False, tooltip="AO.R: 1 in the open, darker in corners."),
                occlusion_radius_input(),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture, resized to the depth. If nothing is connected, the geometry's own.",
                ),
                other_fov_input(advanced=True),
                *numbering_inputs(),
            ],
            outputs=[],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        geometry: dict[str, Any],
        filename_prefix: str,
        normals: bool,
        position: bool,
        ambient_occlusion: bool,
        occlusion_radius: float,
        fov_degrees: float,
        image: Tensor | None = None,
        numbering: str = FILES,
        first_frame: int = 1001,
    ) -> io.NodeOutput:
        geometry = as_moge(geometry)
        depth, valid = geometry_depth(geometry)
        pictures = needed_pictures(geometry, image, len(depth))
        pictures = resize_image(pictures, *depth.shape[1:]).float()
        cameras = geometry_cameras(geometry, depth, fov_degrees)
        places = geometry.get("extrinsics")
        first = first_frame if numbering == SEQUENCE else None
        paths, subfolder = output_paths(filename_prefix, "exr", depth, first)
        for index in with_progress(range(len(depth))):
            passes = passes_of(
                depth[index],
                valid[index],
                cameras[index],
                None if places is None else places[index],
                normals=normals,
                position=position,
                radius=occlusion_radius if ambient_occlusion else None,
            )
            known = torch.where(valid[index], depth[index], torch.nan)
            picture = pictures[index if len(pictures) > 1 else 0]
            layers = Layers(picture.numpy(), known.numpy(), *(None if one is None else one.numpy() for one in passes))
            with written(paths[index]) as partial:
                write_layers(partial, layers, provenance(cls.hidden))
        saved = [UI.SavedResult(path.name, subfolder, io.FolderType.output) for path in paths]
        return io.NodeOutput(ui={**UI.PreviewImage(pictures).as_dict(), "depth_files": saved})
