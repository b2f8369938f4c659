"""Classifier-free guidance (Ho & Salimans, arXiv 2207.12598) of both streams at once, and what tempers it."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """What the model says of a noisy pair: RGB velocity (B, N, Cin) and clean depth (B, N, Cd), float32."""

    rgb_velocity: Tensor
    depth_x0: Tensor


@dataclass(frozen=True)
class Guidance:
    """How far predictions go from the empty prompt's beyond the prompt's.

    Attributes:
        scale: 1 leaves the prediction for the prompt, above it exaggerates the prompt's effect.
        interval: noise levels, lowest and highest, in which there is guidance (Kynkäänniemi et al., arXiv 2404.07724);
            outside of it a step costs half. Of RGB; in i2d of depth.
        rescale: 0 to 1, how much of the spread of the clean picture that guidance adds is taken back (Lin et al.,
            arXiv 2305.08891).
        parallel: how much of guidance along the clean picture itself is kept, which makes colors stronger rather than
            the picture another (Sadat et al., arXiv 2410.02416); 1 keeps all.

    Raises:
        ValueError: a scale that is negative or not finite, an interval or a share outside 0..1.
    """

    scale: float
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    parallel: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"cfg must be a finite number of at least 0, got {self.scale}")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"the interval of guidance must be two noise levels, low and high, got {low:g}, {high:g}")
        for name in ("rescale", "parallel"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} of guidance must lie in 0..1, got {getattr(self, name)}")

    def acts_at(self, level: float) -> bool:
        """Whether a step at this noise level asks the model for the empty prompt, too."""
        return self.scale > 1 and self.interval[0] <= level <= self.interval[1]

    def combine(self, conditional: Prediction, unconditional: Prediction, rgb: Tensor, t_rgb: float) -> Prediction:
        """``unconditional + scale * (conditional - unconditional)`` on both raw predictions, tempered for RGB.

        Both maps from prediction to velocity are affine, so this is guidance of the velocities and of the clean values
        too.

        Args:
            conditional: for the prompt.
            unconditional: for the empty string.
            rgb: the state that they are for, at noise level t_rgb.
        """
        velocity, x0 = unconditional
        push = conditional.rgb_velocity - velocity
        guided_x0 = x0 + self.scale * (conditional.depth_x0 - x0)
        if t_rgb == 0 or (self.parallel == 1 and self.rescale == 0):
            return Prediction(velocity + self.scale * push, guided_x0)
        clean = rgb - t_rgb * conditional.rgb_velocity
        if self.parallel != 1:
            along = (push * clean).sum((1, 2), keepdim=True) / clean.square().sum((1, 2), keepdim=True) * clean
            push = push - (1 - self.parallel) * along
        guided = conditional.rgb_velocity + (self.scale - 1) * push
        if self.rescale:
            guided_clean = rgb - t_rgb * guided
            spread = clean.std((1, 2), keepdim=True) / guided_clean.std((1, 2), keepdim=True)
            guided = (rgb - (1 + self.rescale * (spread - 1)) * guided_clean) / t_rgb
        return Prediction(guided, guided_x0)
