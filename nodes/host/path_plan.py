"""The path that MF Path's widgets describe, as its two outputs and its square need it.

Relies on: ``io.Custom`` of the V3 node API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfy_api.latest import io

from ...mforce_core.model.config import Schedule
from ...mforce_core.release import SHIFT_MU, SHIFT_SIGMA, Mode
from ...mforce_core.sampling.path import NoisePath
from ...mforce_core.sampling.path_spec import KINDS, PathSpec

#: The socket between MF Path and MF Sampler.
PathSocket = io.Custom("MF_PATH")

TILT, POINTS, SHIFTS, FINISH = "tilt", "points", "shifts", "finish"
IMAGE_TO_DEPTH, DEPTH_TO_IMAGE = "image to depth", "depth to image"
#: Options of ``shape``, and the kind of path that each is in ``mforce_core``.
SHAPES = {
    TILT: "tilt",
    POINTS: "points",
    SHIFTS: "shifts",
    FINISH: "finish",
    IMAGE_TO_DEPTH: "i2d",
    DEPTH_TO_IMAGE: "d2i",
}
#: Widgets that are called as the parameters of a path. Those with a number stand for the model's own value at it.
_PARAMETERS = {
    "mu": SHIFT_MU,
    "sigma": SHIFT_SIGMA,
    "depth_mu": SHIFT_MU,
    "depth_sigma": SHIFT_SIGMA,
    "rgb_by": None,
    "depth_by": None,
}
_STARTS = ("start_rgb", "start_depth")


@dataclass(frozen=True)
class PathPlan:
    """How a path is described, in how many steps, the solver that shall follow it, and the path on a schedule.

    ``block_cache`` is the threshold of ``mforce_core.model.block_cache.BlockCache``, 0 for none.
    """

    spec: PathSpec
    steps: int
    solver: str
    path: NoisePath
    block_cache: float = 0.0

    @classmethod
    def of(
        cls, spec: PathSpec, steps: int, solver: str, schedule: Schedule | None = None, *, block_cache: float = 0.0
    ) -> PathPlan:
        """On a model's schedule, or the release's."""
        return cls(spec, steps, solver, spec.build(steps, schedule), block_cache)

    def on(self, schedule: Schedule) -> PathPlan:
        """The same plan for a model of this schedule."""
        return replace(self, path=self.spec.build(self.steps, schedule))

    def advice(self, mode: Mode) -> str | None:
        """A sentence where the first of the shapes, which is for text to image, leads away from what is given."""
        if mode == "joint" or self.spec.kind != SHAPES[TILT]:
            return None
        given, wanted = ("picture", IMAGE_TO_DEPTH) if mode == "i2d" else ("depth", DEPTH_TO_IMAGE)
        return (
            f"MF Path is set to the shape {TILT}, on which the {given} of the latent is only followed loosely: choose"
            f" the shape {wanted} to follow it exactly, or as closely as control_strength says."
        )


def strength_to_tilt(strength: float) -> float | None:
    """log2 alpha between a given stream and the other; None follows it exactly."""
    return None if strength == 1 else 3 - 17 * strength


def control_path(mode: Mode, strength: float, steps: int, solver: str, schedule: Schedule) -> PathPlan:
    """The path of i2d or d2i on which the given stream is followed with a strength, on a model's schedule."""
    return PathPlan.of(PathSpec(mode, log2_alpha=strength_to_tilt(strength)), steps, solver, schedule)


def read_path(values: Mapping[str, Any]) -> PathSpec:
    """The path of the node's widgets, by their names.

    Raises:
        ValueError: values that make no path.
    """
    shape = values["shape"]
    if shape not in SHAPES:
        raise ValueError(f"shape is one of {', '.join(SHAPES)}, not {shape!r}.")
    kind = SHAPES[shape]
    given: dict[str, Any] = {"kind": kind}
    if shape == TILT:
        given["log2_alpha"] = values["tilt"]
    elif shape in (IMAGE_TO_DEPTH, DEPTH_TO_IMAGE):
        given["log2_alpha"] = strength_to_tilt(values["control_strength"])
    elif shape == POINTS:
        given["points"] = [_numbers("points", pair) for pair in values["points"].split()]
    given |= {name: values[name] for name, own in _PARAMETERS.items() if name in KINDS[kind] and values[name] != own}
    # From pure noise on, the path is the release's to the last bit.
    given |= {name: values[name] for name in _STARTS if name in KINDS[kind] and values[name] < 1}
    if values["restarts"].strip():
        given["restarts"] = [_numbers("restarts", turn) for turn in values["restarts"].split()]
    return PathSpec.from_dict(given)


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{text[:40]!r} in {name} is not numbers with commas between them.") from None
