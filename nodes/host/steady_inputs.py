"""How depth of a clip is kept steady, as the widgets of the nodes that make it.

Relies on: the input types of the V3 node API, ``comfy_api.latest.io``.
"""

from __future__ import annotations

from comfy_api.latest import io

from ...mforce_core.settings import DEPTH_STEPS
from ...mforce_core.video.changes import CUT
from ...mforce_core.video.steady import Steadiness


def steadiness_inputs() -> list[io.Input]:
    """The steps of a frame; the widgets after it are the arguments of `steadiness_of`."""
    return [
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
    ]


def steadiness_of(
    one_scale: bool,
    carry: float = 0.0,
    anchor_every: int = 24,
    overlap: int = 4,
    flow: bool = False,
    cut: float = CUT,
    frames_at_once: int = 8,
) -> Steadiness:
    """What the widgets ask for.

    Raises:
        ValueError: values that do not go together.
    """
    return Steadiness(carry, anchor_every, overlap, one_scale, flow, cut, frames_at_once)
