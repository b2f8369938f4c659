"""Node: Depth Detokenize."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy.ldm.colormap import turbo
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth_codec import decode_depth
from ..mforce_core.point_cloud import FOV_DEGREES
from .geometry import Geometry, make_geometry, resize_image
from .image_fit import to_rgb
from .joint_latent import Latent, depth_stream

NAME = "Depth Detokenize"

# Nearest and farthest percent of a map that may be clipped in a picture of it.
_CLIP = 0.01
_QUANTILE_SAMPLES = 1_000_000


class MFDepthDetokenize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthDetokenize",
            display_name=NAME,
            category="model/latent/modality forcing",
            description=(
                "Turn the depth stream into depth: raw for point clouds and meshes, a coloured picture to"
                " look at, a ControlNet map, and the mask of valid pixels. Depth is relative: it has no unit."
            ),
            search_aliases=["modality forcing", "depth decode", "controlnet depth", "depth map", "disparity"],
            inputs=[
                io.Latent.Input("depth", tooltip="Depth stream of MF Sampler, or a joint latent."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip=("The picture that belongs to the depth; it gives point clouds and meshes their colours."),
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
                io.Image.Output(display_name="preview", tooltip="Depth in colours, near is red, invalid is black."),
                io.Image.Output(
                    display_name="controlnet",
                    tooltip="1/depth stretched to 0..1, near is white, as depth ControlNets expect it.",
                ),
                io.Mask.Output(display_name="valid", tooltip="White where the depth is valid."),
                io.Image.Output(
                    display_name="raw",
                    tooltip=(
                        "Relative depth as numbers in three equal channels, invalid is 0. Goes past 1: save"
                        " it as EXR, or look at the preview instead."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, depth: Latent, image: Tensor | None = None, fov_degrees: float = FOV_DEGREES) -> io.NodeOutput:
        stream = depth_stream(NAME, depth).float().cpu()
        maps = decode_depth(stream.movedim(1, -1))
        valid = torch.isfinite(maps)
        if "depth_valid" in depth:
            valid &= depth["depth_valid"].cpu()
        maps = torch.where(valid, maps, torch.zeros_like(maps))

        near = normalised_disparity(maps, valid)
        controlnet = near[..., None].expand(*near.shape, 3).contiguous()
        preview = turbo(near) * valid[..., None]
        if image is None:
            picture = controlnet
        else:
            if image.shape[0] not in (1, maps.shape[0]):
                raise ValueError(
                    f"{NAME}: there are {image.shape[0]} images for {maps.shape[0]} depth maps; give one for each."
                )
            picture = resize_image(to_rgb(image).cpu(), *maps.shape[1:]).expand(*maps.shape, 3)
        geometry = make_geometry(maps, valid, picture, fov_degrees)
        device = comfy.model_management.intermediate_device()
        raw = maps[..., None].expand(*maps.shape, 3).contiguous()
        return io.NodeOutput(
            geometry, preview.to(device), controlnet.to(device), valid.float().to(device), raw.to(device)
        )


def normalised_disparity(depth: Tensor, valid: Tensor) -> Tensor:
    """1 / depth of each map (B, H, W), stretched to 0..1 by its percentiles; near is 1, invalid is 0."""
    out = torch.zeros_like(depth)
    for one, known, target in zip(depth, valid, out, strict=True):
        if not known.any():
            continue
        near = 1.0 / one[known]
        # torch.quantile takes 16 M values at most.
        sampled = near[:: 1 + near.numel() // _QUANTILE_SAMPLES]
        low, high = torch.quantile(sampled, torch.tensor([_CLIP, 1.0 - _CLIP]))
        target[known] = ((near - low) / (high - low).clamp(min=1e-6)).clamp(0.0, 1.0)
    return out
