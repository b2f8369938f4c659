"""Parts of an enlarged depth map that is never held as a whole."""

from __future__ import annotations

import torch
from torch import Tensor

from ..depth.resampling import largest_step, surface_breaks
from .tiles import Size, Tile


class EnlargedDepth:
    """A depth map as `enlarge_depth` gives it, of which tiles are computed when they are asked for.

    Args:
        depth: (h, w) float32, NaN where there is none.
        size: (height, width) that it is enlarged to, no smaller on either side.
    """

    def __init__(self, depth: Tensor, size: Size) -> None:
        self.depth, self.size = depth, size
        self.step = largest_step((depth.shape[0], depth.shape[1]))

    def __getitem__(self, tile: Tile) -> Tensor:
        """(height, width) of a tile."""
        rows = _Places(tile.top, tile.height, self.size[0], self.depth.shape[0])
        columns = _Places(tile.left, tile.width, self.size[1], self.depth.shape[1])
        part = self.depth[rows.used, columns.used]
        disparity = 1 / torch.where(part.isnan(), 1.0, part)
        down, along = rows.share[:, None], columns.share
        upper = torch.lerp(disparity[rows.before][:, columns.before], disparity[rows.before][:, columns.after], along)
        lower = torch.lerp(disparity[rows.after][:, columns.before], disparity[rows.after][:, columns.after], along)
        broken = surface_breaks(part[None], self.step)[0]
        nearest = part[rows.nearest][:, columns.nearest]
        return torch.where(broken[rows.nearest][:, columns.nearest], nearest, 1 / torch.lerp(upper, lower, down))


class _Places:
    """Where ``count`` pixels of an enlarged row, from ``start`` on, lie in the small one.

    Attributes:
        used: the small pixels that decide them, among which the others count.
        before, after, share: the two pixels between which each lies, and how far it is to the second.
        nearest: the pixel that each lies in.
    """

    def __init__(self, start: int, count: int, whole: int, pixels: int) -> None:
        place = (torch.arange(start, start + count, dtype=torch.float64) + 0.5) * (pixels / whole)
        between = (place - 0.5).clamp(min=0)
        first = between.long()
        # Beyond the two pixels of interpolation one more on either side: the neighborhood of the nearest.
        begin = max(0, int(first[0]) - 1)
        self.used = slice(begin, min(pixels, int(first[-1]) + 3))
        self.before, self.share = first - begin, (between - first).float()
        self.after = (first + 1).clamp(max=pixels - 1) - begin
        self.nearest = place.long().clamp(max=pixels - 1) - begin
