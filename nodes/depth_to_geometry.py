"""Node: MF Depth to Geometry."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.range import normalized_disparity
from .host.geometry import (
    DA3Geometry,
    Geometry,
    as_moge,
    depth_of_any,
    geometry_cameras,
    geometry_of_cameras,
    surroundings,
)
from .host.images import gray_image, match_image, to_rgb
from .host.node import Node
from .host.shared_inputs import (
    DISPARITY,
    geometry_output,
    meaning_inputs,
    other_fov_input,
    picture_of_depth_input,
    valid_input,
)


class MFDepthToGeometry(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthToGeometry",
            display_name="MF Depth to Geometry",
            category="image/geometry estimation",
            description=(
                "Depth or disparity from any node, with its picture and field of view, as geometry: for To Point Cloud,"
                " MF Render View, MF Restore Size and core's MoGe nodes. Takes IMAGE depth maps, Depth Anything 3, MoGe"
                " and files."
            ),
            search_aliases=[
                "modality forcing",
                "depth map to geometry",
                "disparity to depth",
                "depth anything",
                "moge",
                "metric depth",
                "depth to 3d",
                "intrinsics",
            ],
            inputs=[
                io.MultiType.Input(
                    "depth",
                    types=[io.Image, Geometry, DA3Geometry],
                    tooltip="IMAGE of depth or disparity, or raw depth from MF Load Depth, MoGe or Depth Anything 3.",
                ),
                *meaning_inputs(),
                other_fov_input(),
                picture_of_depth_input(),
                valid_input(),
            ],
            outputs=[geometry_output()],
        )

    @classmethod
    def execute(
        cls,
        depth: Any,
        meaning: str,
        far_to_near: float,
        fov_degrees: float,
        image: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> io.NodeOutput:
        given = as_moge(depth) if isinstance(depth, dict) else {}
        maps, usable = depth_of_any(depth, meaning == DISPARITY, far_to_near, valid)
        if not usable.any():
            raise ValueError("no pixel is valid; check depth, its meaning and the valid mask.")
        image = given.get("image") if image is None else image
        shown = gray_image(normalized_disparity(maps, usable)) if image is None else match_image(to_rgb(image), maps)
        cameras = geometry_cameras(given, maps, fov_degrees)
        geometry = geometry_of_cameras(torch.where(usable, maps, 0.0), usable, shown, cameras)
        return io.NodeOutput(geometry | surroundings(given))
