"""Node: MF Video Depth."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io

from ..mforce_core.depth.range import percentile_range, stretch
from ..mforce_core.settings import DEPTH_STEPS
from ..mforce_core.video.changes import CUT
from ..mforce_core.video.steady import Steadiness
from .host.clip_depth import Clip, ClipDepth, depth_of_clip
from .host.images import gray_image
from .host.joint_model import check_joint
from .host.node import Node
from .host.shared_inputs import fit_inputs, model_input, seed_input, vae_input

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
                io.Int.Input(
                    "steps",
                    default=DEPTH_STEPS,
                    min=1,
                    max=10000,
                    tooltip="Sampling steps of a frame; more change little but the time.",
                ),
                io.Boolean.Input(
                    "one_scale",
                    default=True,
                    tooltip=(
                        "While the camera rests, keep the scale of depth as it is, whatever comes into view. Off: each"
                        " frame has its own."
                    ),
                ),
                io.Float.Input(
                    "carry",
                    default=0.0,
                    min=0.0,
                    max=0.99,
                    step=0.05,
                    round=0.01,
                    advanced=True,
                    tooltip=(
                        "Above 0: start each frame from the depth of the one before, at this noise level. It takes"
                        " fewer steps, and errors last longer. 0: from noise."
                    ),
                ),
                io.Int.Input(
                    "anchor_every",
                    default=24,
                    min=2,
                    max=100_000,
                    advanced=True,
                    tooltip="With carry: after this many frames depth is made anew from noise.",
                ),
                io.Int.Input(
                    "overlap",
                    default=4,
                    min=1,
                    max=1000,
                    advanced=True,
                    tooltip="With carry: over this many frames the new depth takes the place of the old.",
                ),
                io.Boolean.Input(
                    "flow",
                    default=False,
                    advanced=True,
                    tooltip=(
                        "With carry: move the depth of the frame before along with the pixels. Needs: pip install"
                        " opencv-python-headless."
                    ),
                ),
                io.Float.Input(
                    "cut",
                    default=CUT,
                    min=0.01,
                    max=2.0,
                    step=0.01,
                    advanced=True,
                    tooltip="How far the colors of two frames differ, from 0 to 1, where a cut is seen. 2: never.",
                ),
                io.Int.Input(
                    "frames_at_once",
                    default=8,
                    min=1,
                    max=256,
                    advanced=True,
                    tooltip="Frames that are sampled together. Fewer take less memory.",
                ),
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
        one_scale: bool,
        carry: float = 0.0,
        anchor_every: int = 24,
        overlap: int = 4,
        flow: bool = False,
        cut: float = CUT,
        frames_at_once: int = 8,
    ) -> io.NodeOutput:
        check_joint(model)
        how = Steadiness(carry, anchor_every, overlap, one_scale, flow, cut, frames_at_once)
        frames = Clip(clip)
        made = depth_of_clip(frames, ClipDepth(model, positive, vae, steps, seed), how, width, height, fit)
        near = torch.where(made.valid, 1 / made.depth, 0.0)
        shown = stretch(near, made.valid, percentile_range(near, made.valid, _CLIPPED, together=True))
        device = comfy.model_management.intermediate_device()
        latent = made.latent()
        latent["samples"] = latent["samples"].to(device)
        return io.NodeOutput(latent, made.pictures.to(device), gray_image(shown).to(device), frames.rate)
