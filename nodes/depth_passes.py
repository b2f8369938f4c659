"""Node: MF Depth Passes."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io

from .host.geometry import as_moge, geometry_cameras, geometry_depth
from .host.images import gray_image
from .host.node import Node
from .host.passes import occlusion_radius_input, passes_of
from .host.progress import with_progress
from .host.shared_inputs import geometry_input, other_fov_input


class MFDepthPasses(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthPasses",
            display_name="MF Depth Passes",
            category="image/geometry estimation",
            description=(
                "Passes for relighting and compositing from raw depth: surface normals, places in the world, and"
                " ambient occlusion, the light that corners and contacts lose."
            ),
            search_aliases=[
                "modality forcing",
                "normal map",
                "world position",
                "position pass",
                "ambient occlusion",
                "ao",
                "relight",
                "aov",
            ],
            inputs=[geometry_input(), occlusion_radius_input(), other_fov_input(advanced=True)],
            outputs=[
                io.Image.Output(
                    display_name="normals",
                    tooltip="Normals in the camera's axes as colors, OpenGL: x right, y up, z toward the camera.",
                ),
                io.Image.Output(
                    display_name="position",
                    tooltip="Places in the world as numbers: x right, y up, z backward, in the unit of the depth.",
                ),
                io.Image.Output(
                    display_name="ambient_occlusion",
                    tooltip="1 in the open, darker in corners; to multiply by.",
                ),
                io.Mask.Output(display_name="valid", tooltip="White where the depth is valid."),
            ],
        )

    @classmethod
    def execute(cls, geometry: dict[str, Any], occlusion_radius: float, fov_degrees: float) -> io.NodeOutput:
        geometry = as_moge(geometry)
        depth, valid = geometry_depth(geometry)
        cameras = geometry_cameras(geometry, depth, fov_degrees)
        places = geometry.get("extrinsics")
        found = [
            passes_of(
                depth[index],
                valid[index],
                cameras[index],
                None if places is None else places[index],
                normals=True,
                position=True,
                radius=occlusion_radius,
            )
            for index in with_progress(range(len(depth)))
        ]
        normals, position, occlusion = (torch.stack(maps) for maps in zip(*found, strict=True))
        colors = torch.where(valid[..., None], normals * 0.5 + 0.5, 0.0)
        device = comfy.model_management.intermediate_device()
        results = (colors, position, gray_image(occlusion), valid.float())
        return io.NodeOutput(*(result.to(device) for result in results))
