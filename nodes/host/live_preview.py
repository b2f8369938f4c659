"""Live previews of both streams, side by side, for every sampler node.

ComfyUI previews the first stream of a nested latent: the latent format's optional ``latent_rgb_factors_reshape`` gets
its x0, then a linear map makes RGB of every latent cell. The hook below widens that x0: the picture on the left and, as
latents that the linear map turns into the wanted colors, the depth on the right. A preview by TAESD shows the picture
alone.

Relies on: ``latent_preview.Latent2RGBPreviewer`` and the three ``latent_rgb_factors`` attributes of a latent format.
"""

from __future__ import annotations

import math
from typing import Any

import comfy.utils
import torch
from comfy.ldm.colormap import turbo
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pixel_shuffle

from ...mforce_core.depth.range import percentile_range, stretch

#: Preview pixels a side of a latent cell; the depth stream has 16 to give, which is more than a preview needs.
_DETAIL = 8


class SideBySide:
    """The ``latent_rgb_factors_reshape`` of a joint model's latent format.

    Args:
        latent_format: whose linear map the preview goes through.
    """

    def __init__(self, latent_format: Any) -> None:
        self.latent_format = latent_format
        self.unpack = latent_format.latent_rgb_factors_reshape
        self.depth: Tensor | None = None

    def __call__(self, rgb: Tensor) -> Tensor:
        """RGB x0 (B, C, h, w) as the linear map takes it; with a known depth one sample of twice the width."""
        rgb = rgb if self.unpack is None else self.unpack(rgb)
        if self.depth is None:
            return rgb
        size = [side * _DETAIL for side in self.depth.shape[-2:]]
        picture = interpolate(rgb[:1].float(), size, mode="bilinear")
        colors = turbo(_nearness(self.depth[:1].to(rgb.device, torch.float32)))[0]
        factors = torch.tensor(self.latent_format.latent_rgb_factors, device=rgb.device, dtype=torch.float32)
        bias = torch.tensor(self.latent_format.latent_rgb_factors_bias, device=rgb.device, dtype=torch.float32)
        latents = (2 * colors - 1 - bias) @ torch.linalg.pinv(factors)
        return torch.cat((picture, latents.movedim(-1, 0)[None]), dim=-1)

    def watch(self, callback: Any, latent_shapes: list[Any], alpha: float) -> Any:
        """A sampler callback that notes the depth of every step before it calls ``callback``.

        Args:
            callback: (step, x0, x, total steps) or None; x0 is nested, or packed as ComfyUI before 0.31 hands it over.
            alpha: scale of the carried depth, see `.noise_levels`.
        """
        self.depth = None
        if callback is None:
            return None

        def noted(step: int, x0: Any, x: Any, total: int) -> Any:
            nested = getattr(x0, "is_nested", False)
            streams = x0.unbind() if nested else comfy.utils.unpack_latents(x0, latent_shapes)
            self.depth = alpha * streams[1]
            return callback(step, x0, x, total)

        return noted


def _nearness(depth: Tensor) -> Tensor:
    """Contracted depth patches (B, p * p, h, w) to (B, 8 h, 8 w) in [0, 1], near is 1."""
    maps = pixel_shuffle(depth, math.isqrt(depth.shape[1]))
    small = adaptive_avg_pool2d(maps, (_DETAIL * depth.shape[-2], _DETAIL * depth.shape[-1]))[:, 0]
    # Contracted depth is even already in what is seen; 1 / depth would leave the far half one color.
    everywhere = torch.ones_like(small, dtype=torch.bool)
    return stretch(-small, everywhere, percentile_range(-small, everywhere, 0.0))
