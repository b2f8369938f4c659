"""Node: MF Sampler."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.samplers
from comfy_api.latest import io

from ..mforce_core.release import CFG, STEPS
from .host.core_sampler import AUTO, DEPTH_TO_IMAGE, IMAGE_TO_DEPTH, JOINT, RELEASED, Settings, sample_latent
from .host.joint_latent import Latent, joint, single_streams
from .host.node import Node
from .host.path_plan import PathPlan, PathSocket
from .host.shared_inputs import control_strength_input, model_input, seed_input, tilt_input
from .host.starting_noise import ALWAYS, FOR_DEPTH, NEVER


class MFSampler(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFSampler",
            display_name="MF Sampler",
            category="model/sampling",
            description=(
                "Sample a picture and its depth together, or one from the other. Each of the two streams has its own"
                " noise level. The defaults are those of the release."
            ),
            search_aliases=[
                "modality forcing",
                "flux depth",
                "flux 2",
                "metric depth",
                "ksampler",
                "joint sampler",
                "rgbd",
                "depth estimation",
                "i2d",
                "d2i",
            ],
            inputs=[
                model_input(),
                io.Conditioning.Input("positive", tooltip="What the picture should show."),
                io.Conditioning.Input(
                    "negative",
                    tooltip="What guidance steers away from. The model was trained with an empty prompt here.",
                ),
                io.Latent.Input(
                    "latent",
                    tooltip=(
                        "Decides the task: MF Empty Latent, MF Image to Depth Latent or MF Depth to Image Latent."
                    ),
                ),
                seed_input(
                    "Seed of the starting noise. The same seed and settings give the same result; picture i of a"
                    " batch, counted from 0, has seed + i, or the seed itself where same_noise applies."
                ),
                io.Combo.Input(
                    "mode",
                    options=[AUTO, JOINT, IMAGE_TO_DEPTH, DEPTH_TO_IMAGE],
                    default=AUTO,
                    tooltip=(
                        "auto: what the latent asks for. joint: text to image and depth. i2d: image to depth."
                        " d2i: depth to image."
                    ),
                ),
                io.Int.Input("steps", default=STEPS, min=1, max=10000, tooltip="Sampling steps; fewer are faster."),
                io.Float.Input(
                    "cfg",
                    default=CFG["joint"],
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip=(
                        "How closely to follow the prompt in joint and d2i. 1 turns guidance off and halves the time."
                        " i2d has its own setting, i2d_cfg."
                    ),
                ),
                tilt_input(
                    "Joint only: which stream leads. Above 0 the picture is finished first and its depth is cleaner, 0"
                    " makes both together, below 0 depth leads. The odds of the two noise levels differ by 2^tilt."
                ),
                io.Boolean.Input(
                    "refine_depth",
                    default=False,
                    tooltip="Joint only: make the depth a second time from the finished picture. Doubles the steps.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=comfy.samplers.SAMPLER_NAMES,
                    default="euler",
                    advanced=True,
                    tooltip="Any of core's samplers; the release uses euler.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=[RELEASED, *comfy.samplers.SCHEDULER_NAMES],
                    default=RELEASED,
                    advanced=True,
                    tooltip="Noise levels of the steps: those of the release, or one of core's schedules.",
                ),
                io.Float.Input(
                    "i2d_cfg",
                    default=CFG["i2d"],
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    advanced=True,
                    tooltip="Guidance for image to depth and for refine_depth, where 1 (off) is best.",
                ),
                io.Float.Input(
                    "denoise",
                    optional=True,
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "Below 1: image to image (or depth to depth), from the latent of MF Merge Latent. Lower values"
                        " stay closer to it. If the depth of a picture is missing, it is made first, in as many steps."
                    ),
                ),
                control_strength_input(
                    "i2d and d2i only: how closely to follow the given picture or depth. 1: exactly. Lower: more and"
                    " more as a hint of the layout.",
                    optional=True,
                ),
                io.Combo.Input(
                    "same_noise",
                    options=[FOR_DEPTH, ALWAYS, NEVER],
                    default=FOR_DEPTH,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "When all pictures of a batch start from the same noise. image to depth: in that mode, so that"
                        " the depth of video frames flickers less. always: in every mode. never: each picture has its"
                        " own noise. Repeats of a picture by MF Repeat Latent always differ."
                    ),
                ),
                PathSocket.Input(
                    "path",
                    optional=True,
                    tooltip=(
                        "From MF Path. It takes the place of steps, tilt, sampler_name, scheduler, denoise and"
                        " control_strength."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="rgb", tooltip="The picture, for VAE Decode."),
                io.Latent.Output(display_name="depth", tooltip="The depth, for Depth Detokenize."),
                io.Latent.Output(display_name="joint", tooltip="Both streams in one latent, for another sampler."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent: Latent,
        seed: int,
        mode: str,
        steps: int,
        cfg: float,
        tilt: float,
        refine_depth: bool,
        sampler_name: str = "euler",
        scheduler: str = RELEASED,
        i2d_cfg: float = CFG["i2d"],
        denoise: float = 1.0,
        control_strength: float = 1.0,
        same_noise: str = NEVER,  # of prompts from before there was a choice
        path: PathPlan | None = None,
    ) -> io.NodeOutput:
        settings = Settings(steps, cfg, i2d_cfg, tilt, sampler_name, scheduler, denoise, control_strength, path)
        streams = sample_latent(model, positive, negative, latent, mode, settings, seed, refine_depth, same_noise)
        device = comfy.model_management.intermediate_device()
        rgb, depth = (stream.to(device) for stream in streams)
        picture, stream = single_streams(latent, rgb, depth)
        return io.NodeOutput(picture, stream, stream | joint(rgb, depth))
