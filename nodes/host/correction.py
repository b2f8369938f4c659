"""Correcting the depth of every prediction by measurements, whichever sampler asks for it.

Relies on: core's post-CFG functions (``ModelPatcher.set_model_sampler_post_cfg_function``), which see the packed clean
latent of every step, and ``comfy.utils.pack_latents``.
"""

from __future__ import annotations

from typing import Any

import comfy.utils
from torch import Tensor

from ...mforce_core.depth.completion import complete_patches
from ...mforce_core.model.tokens import latents_to_patches, patches_to_latents


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
        patches = latents_to_patches(model.run.alpha * carried).float()
        depth = patches_to_latents(complete_patches(patches, self.known.to(clean.device), self.valid.to(clean.device)))
        return comfy.utils.pack_latents([rgb, (depth / model.run.alpha).to(carried)])[0]
