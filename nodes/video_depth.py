"""Node: MF Video Depth."""

from __future__ import annotations

from typing import Any

import comfy.model_management
from comfy_api.latest import io

from ..mforce_core.depth.disparity import disparity_of
from ..mforce_core.depth.range import percentile_range, stretch
from .host.clip_depth import Clip, ClipDepth, depth_of_clip
from .host.images import gray_image
from .host.node import Node
from .host.shared_inputs import fit_inputs, model_input, seed_input, vae_input
from .host.steady_inputs import steadiness_inputs, steadiness_of

#: Percent of the clip's pixels beyond either end of the pictures' range.
_CLIPPED = 1.0


class MFVideoDepth(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFVideoDepth",
            display_name="MF Video Depth",
            category="image/geometry estimation",
            description=(
                "Depth of a clip that does not flicker: one noise for all frames, one scale while the camera rests,"
                " cuts found. The clip may be of any length: frames are worked on some at a time."
            ),
            search_aliases=[
                "modality forcing",
                "video depth",
                "temporal consistency",
                "flicker",
                "depth video",
                "video depth anything",
                "depthcrafter",
                "image sequence",
            ],
            inputs=[
                model_input(),
                io.Conditioning.Input("positive", tooltip="What the clip shows; an empty prompt will do."),
                vae_input(),
                io.MultiType.Input(
                    "clip",
                    types=[io.Video, io.Image],
                    tooltip="The frames: a VIDEO, which is read frame by frame, or an IMAGE batch in its order.",
                ),
                *fit_inputs(),
                seed_input("Seed of the noise that all frames start from."),
                *steadiness_inputs(),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="depth",
                    tooltip="The depth stream of all frames, for Depth Detokenize and MF Restore Size.",
                ),
                io.Image.Output(display_name="image", tooltip="The frames at the size that is used."),
                io.Image.Output(
                    display_name="preview",
                    tooltip="1 / depth in gray, near is white, in one range for the whole clip.",
                ),
                io.Float.Output(
                    display_name="fps", tooltip="Frames a second of the VIDEO, for Create Video; 24 for an IMAGE batch."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        vae: Any,
        clip: Any,
        width: int,
        height: int,
        fit: str,
        seed: int,
        steps: int,
        **steadiness: Any,
    ) -> io.NodeOutput:
        depth_of = ClipDepth("MF Video Depth", model, positive, vae, steps, seed)
        how = steadiness_of(**steadiness)
        frames = Clip(clip)
        made = depth_of_clip(frames, depth_of, how, width, height, fit)
        near = disparity_of(made.depth, made.valid)
        shown = stretch(near, made.valid, percentile_range(near, made.valid, _CLIPPED, together=True))
        device = comfy.model_management.intermediate_device()
        latent = made.latent()
        latent["samples"] = latent["samples"].to(device)
        return io.NodeOutput(latent, made.pictures.to(device), gray_image(shown).to(device), float(frames.rate))
