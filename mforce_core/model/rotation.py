"""Where every token stands, and the rotation table (RoPE) that follows from it.

A position has four axes, (stream, row, column, word): RGB tokens are (0, row, column, 0), depth tokens the same with
stream 1, and text tokens (0, 0, 0, index).
"""

import torch
from einops import rearrange, repeat
from torch import Tensor

from ...kernels import rope_table
from .config import Architecture

#: Tables that a model keeps: a few sizes in turn, not every size ever seen.
_KEPT = 4


def text_positions(length: int, device: torch.device | None = None) -> Tensor:
    """(T, 4) float32."""
    positions = torch.zeros(length, 4, device=device)
    positions[:, 3] = torch.arange(length, device=device)
    return positions


def grid_positions(grid: tuple[int, int], *, stream: int, device: torch.device | None = None) -> Tensor:
    """(h * w, 4) float32, row-major over the grid; stream 0 is RGB, 1 depth."""
    height, width = grid
    positions = torch.zeros(height, width, 4, device=device)
    positions[..., 0] = stream
    positions[..., 1] = repeat(torch.arange(height, device=device), "h -> h w", w=width)
    positions[..., 2] = repeat(torch.arange(width, device=device), "w -> h w", h=height)
    return rearrange(positions, "h w p -> (h w) p")


class RotationTables:
    """Tables of one model for the sequence [txt, img, depth], kept from call to call."""

    def __init__(self, config: Architecture) -> None:
        self.axes_dim, self.theta = config.axes_dim, config.theta
        self._kept: dict[tuple, Tensor] = {}

    def __call__(self, text_length: int, grid: tuple[int, int], *, with_depth: bool, device: torch.device) -> Tensor:
        """Cosines and sines, (2, L, D / 2) float32 with L = T + N, or T + 2 N ``with_depth``."""
        if torch.compiler.is_compiling():  # the tracer would take what is kept for a constant
            return self._compute(text_length, grid, with_depth, device)
        key = (text_length, tuple(grid), with_depth, device)
        table = self._kept.pop(key, None)
        if table is None:
            with torch.inference_mode(False):  # training may follow in the same process
                table = self._compute(text_length, grid, with_depth, device)
            if type(table) is not Tensor:  # a fake one, of a tracer
                return table
            if len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
        self._kept[key] = table
        return table

    def _compute(self, text_length: int, grid: tuple[int, int], with_depth: bool, device: torch.device) -> Tensor:
        positions = [text_positions(text_length, device), grid_positions(grid, stream=0, device=device)]
        if with_depth:
            positions.append(grid_positions(grid, stream=1, device=device))
        return rope_table(torch.cat(positions), self.axes_dim, self.theta)
