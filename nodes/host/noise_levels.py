"""The noise levels of the two streams: the schedule, the tilt, and which stream is frozen in a run.

ComfyUI's samplers step one state on one schedule of noise levels s. RGB follows s itself. Depth follows the
Moebius tilt f(s) = A s / (1 + (A - 1) s), and its state y at f(s) is carried as z = y s / f(s). By the
algebra of f, z = (1 - s) (d / A) + s eps: an ordinary flow path on s whose clean value is d / A. Every
sampler that steps from predictions of the clean state therefore moves both streams as it should, and Euler
does exactly what a step of its own per stream would do.

On any other path of the two noise levels there is no such z. Its own sampler (`.path_sampler`) steps the streams
themselves, and s only says where on the path they are (`.clocks`).

Relies on: ``comfy.model_sampling`` (ModelSamplingFlux, CONST), whose noise levels core's schedulers read, and
``comfy.utils.unpack_latents`` for the denoise mask of a nested latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import comfy.model_sampling
import comfy.utils
import torch
from torch import Tensor

from ...mforce_core.model.config import Schedule
from ...mforce_core.release import LOG2_ALPHA
from ...mforce_core.sampling.schedule import shift, tilt
from .clocks import Clocks


class JointModelSampling(comfy.model_sampling.ModelSamplingFlux, comfy.model_sampling.CONST):
    """Rectified flow on the RGB stream's shifted schedule, and the tilt of the depth stream against it.

    Args:
        log2_alpha: tilt, see the head of this module.
        min_depth_time: floor of the noise level that divides in the depth velocity. The release has one of 0.05, which
            leaves a rest of noise where a schedule takes small last steps; predictions of the clean depth need none.
    """

    def __init__(self, schedule: Schedule, log2_alpha: float = LOG2_ALPHA, *, min_depth_time: float = 0.0) -> None:
        self.schedule, self.log2_alpha, self.min_depth_time = schedule, log2_alpha, min_depth_time
        super().__init__(None)

    def set_parameters(self, shift: float = 0.0, timesteps: int = 10000) -> None:
        super().set_parameters(shift=self.schedule.rgb_shift_mu, timesteps=timesteps)

    def sigma(self, timestep: Tensor | float) -> Tensor | float:
        return shift(torch.as_tensor(timestep), self.schedule.rgb_shift_mu, self.schedule.rgb_shift_sigma)

    def percent_to_sigma(self, percent: float) -> float:
        return float(self.sigma(1.0 - min(max(percent, 0.0), 1.0)))


@dataclass(frozen=True)
class JointRun:
    """Settings of one run; ``log2_alpha`` is the tilt of depth against RGB, unless ``clocks`` have both levels."""

    log2_alpha: float = 0.0
    rgb_frozen: bool = False
    depth_frozen: bool = False
    min_depth_time: float = 0.0
    clocks: Clocks | None = None

    @classmethod
    def from_mask(
        cls,
        denoise_mask: Tensor | None,
        latent_shapes: Sequence[Sequence[int]],
        log2_alpha: float,
        min_depth_time: float = 0.0,
        clocks: Clocks | None = None,
    ) -> JointRun:
        """A stream whose denoise mask is zero everywhere is frozen, and then there is nothing to tilt.

        On a path none is frozen: what is kept of a stream is shown to the model at the stream's noise level on the
        path, which is 0 where it shall be followed strictly.

        Args:
            denoise_mask: packed like the latent, (B, 1, L); None denoises everything.
            latent_shapes: of the two streams.
            log2_alpha: tilt for the case that both streams are denoised.
            min_depth_time: see :meth:`depth_trust`.
            clocks: of a path, in place of the tilt.

        Raises:
            ValueError: both streams are frozen.
        """
        if denoise_mask is None:
            return cls(0.0 if clocks else log2_alpha, min_depth_time=min_depth_time, clocks=clocks)
        rgb, depth = (not mask.any() for mask in comfy.utils.unpack_latents(denoise_mask, latent_shapes))
        if rgb and depth:
            raise ValueError("Both the RGB and the depth stream are masked out: leave one of them to be denoised.")
        if clocks is not None:
            return cls(min_depth_time=min_depth_time, clocks=clocks)
        return cls(0.0 if rgb or depth else log2_alpha, bool(rgb), bool(depth), min_depth_time)

    @property
    def alpha(self) -> float:
        """A, the odds of the depth noise level over those of the RGB one."""
        return 2.0**self.log2_alpha

    def depth_factor(self, sigma: Tensor) -> Tensor:
        """f(s) / s, which turns the carried depth z into the model's depth y; finite at s = 0."""
        return self.alpha / (1 + (self.alpha - 1) * sigma)

    def times(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(t_rgb, t_depth) at the sampler's noise level, (B,) each; a frozen stream is clean, at 0."""
        if self.clocks is not None:
            return self.clocks.levels(sigma)
        zero = sigma.new_zeros(sigma.shape)
        t_rgb = zero if self.rgb_frozen else sigma
        t_depth = zero if self.depth_frozen else tilt(sigma, self.log2_alpha)
        return t_rgb, t_depth

    def carried_levels(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels of the states that the sampler carries, (B,) each: z has that of RGB, see the head of this
        module."""
        if self.clocks is not None:
            return self.times(sigma)
        zero = sigma.new_zeros(sigma.shape)
        return zero if self.rgb_frozen else sigma, zero if self.depth_frozen else sigma

    def depth_trust(self, t_depth: Tensor) -> Tensor:
        """How far the clean depth lies from the noisy one towards the prediction, (B,): all the way, unless a floor of
        the dividing noise level says less, as the release's does in its last steps when they are many."""
        if not self.min_depth_time:
            return torch.ones_like(t_depth)
        return t_depth / t_depth.clamp(min=self.min_depth_time)
