"""Node: Depth Detokenize."""

from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.range import normalized_disparity
from ..mforce_core.release import FOV_DEGREES
from .host.depth_latent import decode_stream
from .host.depth_pictures import preview
from .host.geometry import make_geometry
from .host.images import gray_image, match_image, to_rgb
from .host.joint_latent import CATEGORY, Latent, made_depth
from .host.node import Node
from .host.shared_inputs import fov_input, geometry_output, picture_of_depth_input


class MFDepthDetokenize(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthDetokenize",
            display_name="Depth Detokenize (depth stream to maps)",
            category=CATEGORY,
            description=(
                "Turn the depth stream into depth: raw for point clouds and meshes, a colored picture to look at, a"
                " ControlNet map, and a mask of the valid pixels. Depth is relative and has no unit, unless it was"
                " given to Encode Depth: then it comes out in the unit it went in with."
            ),
            search_aliases=[
                "modality forcing",
                "flux depth",
                "metric depth",
                "depth decode",
                "controlnet depth",
                "depth map",
                "disparity",
            ],
            inputs=[
                io.Latent.Input("depth", tooltip="Depth stream of MF Sampler, or a joint latent."),
                picture_of_depth_input(),
                fov_input(),
            ],
            outputs=[
                geometry_output(),
                io.Image.Output(display_name="preview", tooltip="Depth in colors: near is red, invalid is black."),
                io.Image.Output(
                    display_name="controlnet",
                    tooltip="1/depth stretched to 0..1, near is white, as depth ControlNets expect it.",
                ),
                io.Mask.Output(display_name="valid", tooltip="White where the depth is valid."),
                io.Image.Output(
                    display_name="raw",
                    tooltip=(
                        "Depth as numbers in three equal channels, in the unit of Encode Depth or relative; invalid"
                        " pixels are 0. Values go past 1: save them with MF Save Depth, or look at the preview instead."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, depth: Latent, image: Tensor | None = None, fov_degrees: float = FOV_DEGREES) -> io.NodeOutput:
        maps, valid = decode_stream(made_depth(depth).cpu(), depth)
        colored, controlnet = preview(maps, valid), gray_image(normalized_disparity(maps, valid))
        picture = controlnet if image is None else match_image(to_rgb(image), maps)
        if "depth_scale" in depth:
            maps = maps * depth["depth_scale"].to(maps)[:, None, None]
        geometry = make_geometry(maps, valid, picture, fov_degrees)
        pictures = (colored, controlnet, valid.float(), gray_image(maps))
        device = comfy.model_management.intermediate_device()
        return io.NodeOutput(geometry, *(picture.to(device) for picture in pictures))
