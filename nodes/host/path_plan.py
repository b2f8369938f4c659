"""The path that MF Path's widgets describe, as its two outputs and its square need it.

Relies on: ``io.Custom`` of the V3 node API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ...mforce_core.model.config import Schedule
from ...mforce_core.release import Mode
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
#: Widgets that are called as the parameters of a path.
_PARAMETERS = ("mu", "sigma", "depth_mu", "depth_sigma", "rgb_by", "depth_by")
_STARTS = ("start_rgb", "start_depth")


@dataclass(frozen=True)
class PathPlan:
    """A path, how it was described, and the solver that shall follow it."""

    spec: PathSpec
    path: NoisePath
    solver: str


def strength_to_tilt(strength: float) -> float | None:
    """log2 alpha between a given stream and the other; None follows it exactly."""
    return None if strength == 1 else 3 - 17 * strength


def control_path(mode: Mode, strength: float, steps: int, solver: str, schedule: Schedule) -> PathPlan:
    """The path of i2d or d2i on which the given stream is followed with a strength, on a model's schedule."""
    spec = PathSpec(mode, log2_alpha=strength_to_tilt(strength))
    return PathPlan(spec, spec.build(steps, schedule), solver)


def read_path(values: Mapping[str, Any]) -> tuple[PathSpec, NoisePath]:
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
    given |= {name: values[name] for name in _PARAMETERS if name in KINDS[kind]}
    # From pure noise on, the path is the release's to the last bit.
    given |= {name: values[name] for name in _STARTS if name in KINDS[kind] and values[name] < 1}
    if values["restarts"].strip():
        given["restarts"] = [_numbers("restarts", turn) for turn in values["restarts"].split()]
    spec = PathSpec.from_dict(given)
    return spec, spec.build(values["steps"])


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{text[:40]!r} in {name} is not numbers with commas between them.") from None
