"""Node: MF Path."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..mforce_core.release import SHIFT_MU, SHIFT_SIGMA, STEPS
from ..mforce_core.sampling.solvers import SOLVERS
from .host.node import Node
from .host.path_plan import SHAPES, TILT, PathPlan, PathSocket, read_path
from .host.path_sampler import PathSampler
from .host.shared_inputs import control_strength_input, tilt_input


class MFPath(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFPath",
            display_name="MF Path",
            category="model/sampling",
            description=(
                "Choose how the noise of the picture and that of its depth go down, step by step: a path through a"
                " square, from noise to finished. Drag its points, or set numbers."
            ),
            search_aliases=[
                "modality forcing",
                "two clocks",
                "separate timesteps",
                "noise schedule",
                "sigmas",
                "trajectory",
                "partial conditioning",
                "scheduler",
            ],
            inputs=[
                io.Combo.Input(
                    "shape",
                    options=list(SHAPES),
                    default=TILT,
                    tooltip=(
                        "tilt: one number, as in MF Sampler. points: straight lines between points of your own. shifts:"
                        " each stream on its own schedule. finish: each stream done after a part of the steps. image to"
                        " depth: depth from a given picture. depth to image: a picture from given depth."
                    ),
                ),
                io.Int.Input(
                    "steps", default=STEPS, min=1, max=10000, tooltip="Steps along the path; fewer are faster."
                ),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    default="euler",
                    tooltip=(
                        "How a step is taken. euler: as in the release. heun: closer with as many steps, at twice the"
                        " cost. dpmpp_2m: closer at no extra cost, so that fewer steps will do. euler_ancestral: with"
                        " fresh noise in every step."
                    ),
                ),
                tilt_input(
                    "For tilt: which stream leads. Above 0 the picture is finished first, 0 makes both together, below"
                    " 0 depth leads. The odds of the two noise levels differ by 2^tilt."
                ),
                io.String.Input(
                    "points",
                    default="1,1 0.5,0.8 0.2,0.6 0,0",
                    tooltip=(
                        "For points: the noise of picture and depth at each point, from noise (1,1) to finished (0,0)."
                        " No value may rise. A stream that is given starts at less than 1."
                    ),
                ),
                io.Float.Input(
                    "rgb_by",
                    default=0.6,
                    min=0.01,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    tooltip="For finish: the part of the steps after which the picture is done.",
                ),
                io.Float.Input(
                    "depth_by",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    tooltip="For finish: the part of the steps after which the depth is done.",
                ),
                control_strength_input(
                    "For image to depth and depth to image: how closely to follow what is given. 1: exactly. Lower:"
                    " more and more as a hint of the layout."
                ),
                io.Float.Input(
                    "start_rgb",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    advanced=True,
                    tooltip=(
                        "Noise of the picture at the start. Below 1 the latent's picture is kept in part, as denoise"
                        " does elsewhere."
                    ),
                ),
                io.Float.Input(
                    "start_depth",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.01,
                    advanced=True,
                    tooltip="Noise of the depth at the start. Below 1 the latent's depth is kept in part.",
                ),
                _shift_input(
                    "mu", SHIFT_MU, "Above 0: more of the steps at high noise. At 1.1, the model's own value is used."
                ),
                _shift_input(
                    "sigma",
                    SHIFT_SIGMA,
                    "Below 1: more of the steps at middle noise. At 1, the model's own value is used.",
                ),
                _shift_input("depth_mu", SHIFT_MU, "As mu, for depth, where it has a schedule of its own."),
                _shift_input("depth_sigma", SHIFT_SIGMA, "As sigma, for depth, where it has a schedule of its own."),
                io.String.Input(
                    "restarts",
                    default="",
                    advanced=True,
                    tooltip=(
                        "Go back up and take steps again, such as 0.8,0.5,2: after 80% of the steps, back to 50%,"
                        " twice. Several are separated by spaces."
                    ),
                ),
                io.Float.Input(
                    "block_cache",
                    optional=True,
                    default=0.0,
                    min=0.0,
                    max=0.9,
                    step=0.01,
                    round=0.001,
                    advanced=True,
                    tooltip=(
                        "Above 0, most blocks of the model are left out in steps in which they would change little:"
                        " faster, and nearly the same result. 0.03 is careful, 0.1 is not."
                    ),
                ),
            ],
            outputs=[
                PathSocket.Output(display_name="path", tooltip="The path, for MF Sampler."),
                io.Sampler.Output(display_name="sampler", tooltip="Steps along the path, for SamplerCustomAdvanced."),
                io.Sigmas.Output(
                    display_name="sigmas", tooltip="Where on the path the steps are, for SamplerCustomAdvanced."
                ),
            ],
        )

    @classmethod
    def execute(cls, solver: str, steps: int, block_cache: float = 0.0, **values: Any) -> io.NodeOutput:
        plan = PathPlan.of(read_path(values), steps, solver, block_cache=block_cache)
        sampler = PathSampler(plan)
        return io.NodeOutput(plan, sampler, sampler.sigmas)


def _shift_input(name: str, default: float, tooltip: str) -> io.Input:
    least = 0.05 if name.endswith("sigma") else -20.0
    return io.Float.Input(
        name, default=default, min=least, max=20.0, step=0.05, round=0.01, advanced=True, tooltip=tooltip
    )
