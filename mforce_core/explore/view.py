"""What a camera sees of the known part of a scene, made whole by the background until the model fills it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..depth.disparity import disparity_of
from ..scene3d.holes import fill_from_background
from ..scene3d.render_view import View

#: A camera that sees less than this share of its view filled has nothing to go on.
_LEAST_KNOWN = 0.1


@dataclass(frozen=True)
class Seen:
    """A view with every hole filled from the background.

    Attributes:
        color: (H, W, 3) in [0, 1].
        depth: (H, W), positive.
        covered: (H, W, 3) the mean color of the known part of each pixel, 0 where there is none.
        coverage: (H, W), the share of a pixel that is known.
        known: (H, W) bool, pixels that are known as a whole.
    """

    color: Tensor
    depth: Tensor
    covered: Tensor
    coverage: Tensor
    known: Tensor

    @classmethod
    def of(cls, view: View, name: str = "the camera") -> Seen:
        """From a rendered view.

        Raises:
            ValueError: next to nothing of the scene is in it.
        """
        known = (view.coverage >= 1) & (view.depth > 0)
        share = float(known.float().mean())
        if share < _LEAST_KNOWN:
            raise ValueError(
                f"{name} sees only {share:.0%} of its view filled: it stands inside a wall or an object, or looks away"
                " from the picture; move it less."
            )
        near = disparity_of(view.depth, known)
        behind = fill_from_background(near[..., None], known.to(near), view.depth)[..., 0]
        color = fill_from_background(view.color, view.coverage, view.depth)
        return cls(color, 1 / behind.clamp(min=1e-30), view.color, view.coverage, known)

    @property
    def holes(self) -> Tensor:
        """(H, W) bool."""
        return ~self.known

    def as_it_is(self) -> Filled:
        """The view with the background in its holes."""
        return Filled(self.color, self.depth)

    def finished(self, color: Tensor, depth: Tensor) -> Filled:
        """The view with a model's picture and depth of its size in its holes, and itself elsewhere."""
        mixed = torch.lerp(color, self.covered, self.coverage[..., None])
        return Filled(mixed, torch.where(self.known, self.depth, depth))


@dataclass(frozen=True)
class Filled:
    """A whole view: color (H, W, 3) in [0, 1], depth (H, W)."""

    color: Tensor
    depth: Tensor
