"""What is known of a view, held while the model makes the rest of its picture and of its depth.

Both streams start from the view with its holes filled from the background, at partial noise, and every clean prediction
of a rollout is corrected by what is known: depth pixel by pixel, also inside a token, as measurements are
(:mod:`..depth.completion`); RGB by the autoencoder's cells, of which a token has four, and pixel by pixel when the
picture is finished. Replacing whole tokens (RePaint, arXiv 2201.09865, with a mask of tokens) costs the colors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..depth.codec import contract, expand, mean_depth
from ..depth.completion import complete_patches
from ..encoders.latent_space import pack_2x2
from ..model.tokens import latents_to_patches, patches_to_latents, patchify, unpatchify
from ..release import PATCH_SIZE
from ..sampling.path_spec import PathSpec
from .view import Seen

#: Pixels along the side of an autoencoder's cell; a token holds two by two.
_CELL = PATCH_SIZE // 2


def fill_path(noise: float, resample: int) -> PathSpec:
    """The path of both streams from partial noise.

    Args:
        noise: level at the start.
        resample: how many times the first half is taken again from new noise, so that what is made can still agree with
            what is held (RePaint's jumps).
    """
    restarts = ((0.5, 0.0, resample),) if resample else None
    start = noise if noise < 1 else None
    return PathSpec("tilt", log2_alpha=0.0, start_rgb=start, start_depth=start, restarts=restarts)


@dataclass(frozen=True)
class Hold:
    """Views as the model's streams see them.

    Attributes:
        rgb: (B, C, h, w) latents of the pictures with their holes filled.
        kept: (B, C, h, w), 1 where a latent belongs to a cell without a hole, 0 elsewhere.
        depth: (B, H, W) in the depth stream's unit, holes filled.
        valid: (B, H, W) bool, where the depth is known.
        unit: (B,) what the depth was divided by.
    """

    rgb: Tensor
    kept: Tensor
    depth: Tensor
    valid: Tensor
    unit: Tensor

    @classmethod
    def of(cls, seen: Seen, rgb: Tensor) -> Hold:
        """From a view and the latents (1, C, h, w) of its filled picture."""
        cells = -max_pool2d(-seen.known.float()[None, None], _CELL)
        depth, valid = (maps[None].to(rgb.device) for maps in (seen.depth, seen.known))
        unit = mean_depth(depth).float()
        kept = pack_2x2(cells.expand(-1, rgb.shape[1] // 4, -1, -1)).to(rgb)
        return cls(rgb, kept, depth / unit[:, None, None], valid, unit)

    def depth_latents(self) -> Tensor:
        """(B, p * p, h, w): the depth stream that a rollout starts from."""
        return patches_to_latents(patchify(contract(self.depth), PATCH_SIZE)).contiguous()

    def correct_rgb(self, clean: Tensor) -> Tensor:
        """Clean latents (B, C, h, w) with those of known cells in their place."""
        return torch.lerp(clean, self.rgb.to(clean), self.kept.to(clean))

    def correct_depth(self, clean: Tensor) -> Tensor:
        """Clean depth latents (B, p * p, h, w), corrected by the known pixels."""
        return patches_to_latents(self._completed(clean))

    def depth_of(self, clean: Tensor) -> Tensor:
        """Depth maps (B, H, W) in the scene's unit of clean depth latents, the known pixels as they are."""
        return expand(unpatchify(self._completed(clean))) * self.unit.to(clean.device)[:, None, None]

    def _completed(self, clean: Tensor) -> Tensor:
        known, valid = self.depth.to(clean.device), self.valid.to(clean.device)
        return complete_patches(latents_to_patches(clean).float(), known, valid)
