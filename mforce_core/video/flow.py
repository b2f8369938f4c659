"""Where the pixels of a frame were in the frame before it, by optical flow of OpenCV."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Going back and forth must end this near, in pixels, or the pixel was hidden.
_RETURNS = 1.0


class FlowWarp:
    """Brings maps of one frame to the next along dense inverse search flow (Kroeger et al., arXiv 1603.03590).

    Raises:
        ModuleNotFoundError: OpenCV is not installed.
    """

    def __init__(self) -> None:
        self._cv2 = import_cv2()
        self._flow: Any = self._cv2.DISOpticalFlow_create(self._cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, before: Tensor, after: Tensor, *maps: Tensor) -> list[Tensor]:
        """Maps of ``before`` as seen in ``after``.

        Args:
            before, after: pictures (3, H, W) in [0, 1].
            maps: (..., H, W) of the first picture.

        Returns:
            The maps at the places of the second picture's pixels, each value one that was there before; NaN where the
            pixel was hidden or outside.
        """
        gray = [self._gray(picture) for picture in (before, after)]
        back = self._flow.calc(gray[1], gray[0], None)
        forth = self._flow.calc(gray[0], gray[1], None)
        height, width = gray[0].shape
        y, x = np.mgrid[:height, :width].astype(np.float32)
        from_x, from_y = x + back[..., 0], y + back[..., 1]
        there = self._cv2.remap(forth, from_x, from_y, self._cv2.INTER_LINEAR)
        inside = (from_x >= -0.5) & (from_x < width - 0.5) & (from_y >= -0.5) & (from_y < height - 0.5)
        seen = torch.from_numpy(inside & (np.hypot(*np.moveaxis(there + back, -1, 0)) < _RETURNS))
        rows = torch.from_numpy(from_y).round().long().clamp(0, height - 1)
        columns = torch.from_numpy(from_x).round().long().clamp(0, width - 1)
        return [torch.where(seen, one[..., rows, columns], torch.nan) for one in maps]

    def _gray(self, picture: Tensor) -> np.ndarray:
        pixels = (picture * 255).round().clamp(0, 255).to(torch.uint8).movedim(0, -1).contiguous().numpy()
        return self._cv2.cvtColor(pixels, self._cv2.COLOR_RGB2GRAY)


def import_cv2() -> ModuleType:
    """OpenCV; raises ModuleNotFoundError with how to install it."""
    try:
        import cv2
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Optical flow needs OpenCV: pip install opencv-python-headless, or the extra"
            " 'comfyui-modality-forcing[flow]'."
        ) from None
    return cv2
