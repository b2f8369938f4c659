"""Depth patches that overlap: an orthogonal change of basis between a depth map and what the tokens hold.

A token that is a square cut out of the map leaves a step at the square's border wherever its level is a little off, and
every network's levels are. Here each token's numbers belong to a window of twice the patch's side, which fades into its
neighbors' windows, as in the lapped transforms of image coding (Malvar & Staelin, 1989). The change of basis is
orthogonal: it keeps squared errors and white noise as they are, needs no more numbers than pixels, and is undone by
its transpose. The model applies it to the depth that comes in and undoes it on the depth that goes out, so nothing
outside the model sees it.
"""

import numpy as np
import torch
from torch import Tensor

from ...kernels.tracing import constant_when_traced
from .tokens import patches_to_tokens, patchify, tokens_to_patches, unpatchify


def border_filter(side: int) -> np.ndarray:
    """Orthogonal matrix (p, p) float64 for the p pixels around a border of patches, p / 2 on each side of it.

    The pre-filter of the fast lapped orthogonal transform (Malvar, "Signal Processing with Lapped Transforms", 1992, in
    the form in the time domain of Tran, Liang & Tu, IEEE Transactions on Signal Processing 51, 2003). Sums of pixels
    that mirror each other stay as they are, so a constant stays constant; their differences pass a chain of plane
    rotations, of the pair nearest to the border last. The angles are this project's: with them, tokens that are off
    independently of each other, each as maps of depth differ, leave steps of nearly the same size between all
    neighboring pixels. Those of the literature, made for coding, leave more in the middle of patches. ``p`` is even.
    """
    half = side // 2
    chain = np.eye(half)
    for pair in reversed(range(half - 1)):
        angle = 0.7 * np.sin(2 * (half - 1 - pair) / half)
        rotation = np.eye(half)
        rotation[pair : pair + 2, pair : pair + 2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        chain = rotation @ chain

    # Sums above differences; both are ordered by the distance from the border, the pixels from left to right.
    mirror, same = np.eye(half)[::-1], np.eye(half)
    butterfly = np.block([[mirror, same], [mirror, -same]]) / np.sqrt(2)
    rotated = np.block([[same, np.zeros((half, half))], [np.zeros((half, half)), chain]])
    return butterfly.T @ rotated @ butterfly


class LappedPatches:
    """The change of basis of one model, for patches of one side; its matrix is kept for each device."""

    def __init__(self, side: int) -> None:
        self._filter = border_filter(side).tolist()
        self._kept: dict[torch.device, Tensor] = {}

    def lap(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Depth tokens of cut patches -> of overlapping ones, (B, h * w, p * p) -> float32 on the grid (h, w)."""
        return _filtered(tokens.float(), grid, self._matrix(tokens.device))

    def unlap(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Inverse of :meth:`lap`."""
        return _filtered(tokens.float(), grid, self._matrix(tokens.device).mT)

    @constant_when_traced  # compiled steps would copy it from the host each time, and wait for that
    def _matrix(self, device: torch.device) -> Tensor:
        matrix = self._kept.get(device)
        if matrix is None:
            with torch.inference_mode(False):  # training may follow in the same process
                matrix = torch.tensor(self._filter, device=device)
            if type(matrix) is Tensor:  # not a fake one, of a tracer
                self._kept[device] = matrix
        return matrix


def _filtered(tokens: Tensor, grid: tuple[int, int], matrix: Tensor) -> Tensor:
    """The matrix on the pixels around every inner border, along rows and along columns (which commute)."""
    maps = unpatchify(tokens_to_patches(tokens, grid))
    maps = _along_width(maps, matrix)
    maps = _along_width(maps.mT, matrix).mT
    return patches_to_tokens(patchify(maps, len(matrix)))


def _along_width(maps: Tensor, matrix: Tensor) -> Tensor:
    """(B, H, W) -> (B, H, W): blocks of p columns that straddle the borders; p / 2 at both ends stay as they are."""
    half, borders = len(matrix) // 2, maps.shape[-1] // len(matrix) - 1
    left, inner, right = maps.tensor_split((half, maps.shape[-1] - half), dim=-1)
    return torch.cat([left, (inner.unflatten(-1, (borders, len(matrix))) @ matrix.mT).flatten(-2), right], dim=-1)
