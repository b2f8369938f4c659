"""Node: Depth Detokenize."""

from __future__ import annotations

import comfy.model_management
from comfy.ldm.colormap import turbo
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.range import normalized_disparity
from ..mforce_core.release import FOV_DEGREES
from .host.depth_latent import decode_stream
from .host.geometry import Geometry, make_geometry, match_image
from .host.image_fit import to_rgb
from .host.joint_latent import Latent, depth_stream

NAME = "Depth Detokenize"


class MFDepthDetokenize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthDetokenize",
            display_name=NAME,
            category="model/latent/modality forcing",
            description=(
                "Turn the depth stream into depth: raw for point clouds and meshes, a colored picture to"
                " look at, a ControlNet map, and the mask of valid pixels. Depth is relative, without a unit, except"
                " where Encode Depth was given depth: then it comes out in the unit in which it went in."
            ),
            search_aliases=["modality forcing", "depth decode", "controlnet depth", "depth map", "disparity"],
            inputs=[
                io.Latent.Input("depth", tooltip="Depth stream of MF Sampler, or a joint latent."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip=("The picture that belongs to the depth; it gives point clouds and meshes their colors."),
                ),
                io.Float.Input(
                    "fov_degrees",
                    default=FOV_DEGREES,
                    min=1.0,
                    max=170.0,
                    step=0.5,
                    tooltip="Horizontal field of view of the camera, for everything that becomes 3D.",
                ),
            ],
            outputs=[
                Geometry.Output(
                    display_name="geometry",
                    tooltip=("Raw depth with mask, camera and picture, for To Point Cloud and core's MoGe nodes."),
                ),
                io.Image.Output(display_name="preview", tooltip="Depth in colors, near is red, invalid is black."),
                io.Image.Output(
                    display_name="controlnet",
                    tooltip="1/depth stretched to 0..1, near is white, as depth ControlNets expect it.",
                ),
                io.Mask.Output(display_name="valid", tooltip="White where the depth is valid."),
                io.Image.Output(
                    display_name="raw",
                    tooltip=(
                        "Depth as numbers in three equal channels, in the unit of Encode Depth or relative; invalid is"
                        " 0. Goes past 1: save it with MF Save Depth, or look at the preview instead."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, depth: Latent, image: Tensor | None = None, fov_degrees: float = FOV_DEGREES) -> io.NodeOutput:
        maps, valid = decode_stream(depth_stream(NAME, depth).cpu(), depth)
        near = normalized_disparity(maps, valid)
        controlnet = near[..., None].expand(*near.shape, 3).contiguous()
        preview = turbo(near) * valid[..., None]
        picture = controlnet if image is None else match_image(NAME, to_rgb(image), maps)
        if "depth_scale" in depth:
            maps = maps * depth["depth_scale"].to(maps)[:, None, None]
        geometry = make_geometry(maps, valid, picture, fov_degrees)
        device = comfy.model_management.intermediate_device()
        raw = maps[..., None].expand(*maps.shape, 3).contiguous()
        return io.NodeOutput(
            geometry, preview.to(device), controlnet.to(device), valid.float().to(device), raw.to(device)
        )
