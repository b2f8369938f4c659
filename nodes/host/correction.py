"""Correcting the depth of every prediction by measurements, whichever sampler asks for it.

Relies on: core's post-CFG functions (``ModelPatcher.set_model_sampler_post_cfg_function``), which see the packed clean
latent of every step, and ``comfy.utils.pack_latents``.
"""

from __future__ import annotations

import math
from typing import Any

import comfy.utils
from torch import Tensor

from ...mforce_core.depth.codec import contract, expand
from ...mforce_core.depth.completion import complete_depth
from ...mforce_core.model.tokens import latents_to_patches, patches_to_latents, patchify, unpatchify

# Contracted depth that a prediction is held within before it is corrected: 2 is infinitely far.
_NEAREST, _FARTHEST = 0.01, 1.98


class Correction:
    """A post-CFG function that corrects the depth of every prediction.

    Args:
        known: measured depth (B or 1, H, W) in the depth stream's unit.
        valid: (B or 1, H, W) bool.
    """

    def __init__(self, known: Tensor, valid: Tensor) -> None:
        self.known, self.valid = known, valid

    def __call__(self, args: dict[str, Any]) -> Tensor:
        """The packed clean latent with corrected depth; ``args`` are core's."""
        clean, model = args["denoised"], args["model"]
        rgb, carried = comfy.utils.unpack_latents(clean, model.latent_shapes)
        maps = unpatchify(latents_to_patches(model.run.alpha * carried).float())
        prediction = expand(maps.clamp(_NEAREST, _FARTHEST))
        corrected = complete_depth(prediction, self.known.to(clean.device), self.valid.to(clean.device))
        depth = patches_to_latents(patchify(contract(corrected), math.isqrt(carried.shape[1])))
        return comfy.utils.pack_latents([rgb, (depth / model.run.alpha).to(carried)])[0]
