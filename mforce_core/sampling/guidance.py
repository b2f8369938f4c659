"""Classifier-free guidance (Ho & Salimans, arXiv 2207.12598) of both streams at once."""

from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """What the model says of a noisy pair: RGB velocity (B, N, Cin) and clean depth (B, N, Cd), float32."""

    rgb_velocity: Tensor
    depth_x0: Tensor


def guided(conditional: Prediction, unconditional: Prediction, scale: Tensor) -> Prediction:
    """``unconditional + scale * (conditional - unconditional)`` on both raw predictions.

    Both maps from prediction to velocity are affine, so this is guidance of the velocities too.

    Args:
        conditional: for the prompt.
        unconditional: for the empty string.
        scale: 1 leaves the conditional prediction, above it exaggerates the prompt's effect.
    """
    velocity, x0 = unconditional
    return Prediction(
        velocity + scale * (conditional.rgb_velocity - velocity), x0 + scale * (conditional.depth_x0 - x0)
    )
