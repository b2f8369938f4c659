"""A depth map as a surface: one small quad for each pixel, joined to its neighbors, torn where depth jumps.

Everything is in disparity, 1 / depth, in which a plane is linear across the picture: a quad's corners follow the
local slope, so that flat surfaces stay flat and closed from every side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..depth.disparity import disparity_of

# Corners of a pixel, clockwise from the top left: the steps to the neighbors across them.
CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1))

# A ramp goes on at about the same rate on both sides of a step; a jump does not.
_RAMP = 2.0
# Least contrast of a soft edge, in units of the edge threshold, and how much more range than the edge its
# surroundings may have: those of a straight slope have at least twice as much.
_SOFT_CONTRAST = 2.0
_SURROUNDINGS = 1.6


@dataclass(frozen=True)
class Surface:
    """The quads of an (H, W) depth map.

    valid: (H, W) bool, pixels that have a quad. disparity: (H, W), zero where not valid. corners: (4, H, W)
    disparity at each pixel's own corners, in the order of `CORNERS`. joined: (H, W) int32, three bits for each corner,
    the first corner's lowest: whether the horizontal, the vertical and the diagonal neighbor there belong to the same
    surface. front: (H, W) disparity of the nearer surface that a pixel lies right behind, zero elsewhere.
    """

    valid: Tensor
    disparity: Tensor
    corners: Tensor
    joined: Tensor
    front: Tensor

    def to(self, device: torch.device) -> Surface:
        """The same surface on another device."""
        return Surface(**{name: value.to(device) for name, value in vars(self).items()})


def build_surface(depth: Tensor, valid: Tensor, *, edge_threshold: float, softness: int) -> Surface:
    """The surface of a depth map (H, W).

    Args:
        valid: (H, W) bool; the depth there must be positive and finite.
        edge_threshold: neighbors whose depths differ by more than this fraction are torn apart, unless the
            difference is that of a slope which goes on to both sides.
        softness: width of the map's and the picture's soft edges in pixels; 0 where both are perfectly sharp.
            Ramps of that width become jumps, and the pixels within it behind a jump count as mixed with what is in
            front.
    """
    disparity = disparity_of(depth, valid)
    if softness:
        disparity = sharpen_edges(disparity, valid, edge_threshold, softness)
    right = links(disparity, valid, edge_threshold)
    down = links(disparity.T, valid.T, edge_threshold).T
    corners, joined = _corners(disparity, right, down)
    return Surface(valid, disparity, corners, joined, _front(disparity, right, down, softness, edge_threshold))


def sharpen_edges(disparity: Tensor, valid: Tensor, edge_threshold: float, softness: int) -> Tensor:
    """Move pixels in the soft ramp between a near and a far surface to the one that is closer to them.

    Predicted and resized depth has such pixels; as surfaces of their own they would float in the gap.
    """
    low, high = _extremes(disparity, valid, 2 * softness + 1)
    wide_low, wide_high = _extremes(disparity, valid, 4 * softness + 3)
    ends_here = (high - low) * _SURROUNDINGS > wide_high - wide_low
    soft = valid & ends_here & (high - low > _SOFT_CONTRAST * edge_threshold * low)
    for _ in range(softness):
        low, high = _extremes(disparity, valid, 3)
        nearest = torch.where(disparity - low < high - disparity, low, high)
        disparity = torch.where(soft & (high - low > edge_threshold * low), nearest, disparity)
    return disparity


def _front(disparity: Tensor, right: Tensor, down: Tensor, softness: int, edge_threshold: float) -> Tensor:
    """Disparity of the nearer surface within `softness` pixels across a jump, zero where there is none."""
    if not softness:
        return torch.zeros_like(disparity)
    nearest = torch.zeros_like(disparity)
    for values, result, link in ((disparity, nearest, right), (disparity.T, nearest.T, down.T)):
        left, other = values[:, :-1], values[:, 1:]
        result[:, :-1] = torch.maximum(result[:, :-1], other * (~link & (other > left)))
        result[:, 1:] = torch.maximum(result[:, 1:], left * (~link & (left > other)))
    nearest = F.max_pool2d(nearest[None, None], 2 * softness - 1, stride=1, padding=softness - 1)[0, 0]
    return nearest * (nearest > disparity * (1.0 + edge_threshold))


def _extremes(disparity: Tensor, valid: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Lowest and highest valid disparity around each pixel."""
    padding = window // 2
    high = F.max_pool2d(disparity[None, None], window, stride=1, padding=padding)[0, 0]
    inverted = torch.where(valid, -disparity, torch.full_like(disparity, -torch.inf))
    low = -F.max_pool2d(inverted[None, None], window, stride=1, padding=padding)[0, 0]
    return low, high


def links(disparity: Tensor, valid: Tensor, edge_threshold: float) -> Tensor:
    """(H, W - 1) bool: whether each pixel of a map of 1 / depth and its right neighbor are on one surface."""
    left, right = disparity[:, :-1], disparity[:, 1:]
    known = valid[:, :-1] & valid[:, 1:]
    step = torch.where(known, right - left, torch.zeros_like(left))
    close = step.abs() <= edge_threshold * torch.minimum(left, right)
    before, after = F.pad(step, (1, 0))[:, :-1], F.pad(step, (0, 1))[:, 1:]
    supported = torch.minimum(before * step.sign(), after * step.sign())
    return known & (close | (step.abs() <= _RAMP * supported))


def _corners(disparity: Tensor, right: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Disparity at the corners of each pixel and the neighbors it shares them with; see `Surface`."""
    height, width = disparity.shape
    slope_x, slope_y = slopes(disparity, right), slopes(disparity.T, down.T).T

    # On the grid of corners (H + 1, W + 1), the four pixels around each: top left, top right, bottom left,
    # bottom right. A member's disparity, continued to the corner along its own slope:
    offsets = ((-1, -1), (1, -1), (-1, 1), (1, 1))
    reach = []
    for step_x, step_y in offsets:
        continued = disparity - 0.5 * (step_x * slope_x + step_y * slope_y)
        continued = continued.clamp(min=0.5 * disparity, max=2.0 * disparity)
        reach.append(F.pad(continued, (int(step_x < 0), int(step_x > 0), int(step_y < 0), int(step_y > 0))))
    # Links between them, around the corner.
    ring = {
        (0, 1): F.pad(right, (1, 1, 1, 0)),
        (2, 3): F.pad(right, (1, 1, 0, 1)),
        (0, 2): F.pad(down, (1, 0, 1, 1)),
        (1, 3): F.pad(down, (0, 1, 1, 1)),
    }

    def linked(first: int, second: int) -> Tensor:
        return ring[min(first, second), max(first, second)]

    values, shares = [], []
    for step_x, step_y in CORNERS:
        own = int(step_x < 0) + 2 * int(step_y < 0)
        across, along, opposite = own ^ 1, own ^ 2, own ^ 3
        direct_x, direct_y = linked(own, across), linked(own, along)
        far_x, far_y = linked(across, opposite), linked(along, opposite)
        member = {
            own: torch.ones_like(direct_x),
            across: direct_x | (direct_y & far_y & far_x),
            along: direct_y | (direct_x & far_x & far_y),
            opposite: (direct_x & far_x) | (direct_y & far_y),
        }
        # In one order for every pixel at the corner: members must get the same number, to the last bit.
        total, count = torch.zeros_like(reach[0]), torch.zeros_like(reach[0])
        for index, value in enumerate(reach):
            total = total + torch.where(member[index], value, torch.zeros_like(value))
            count = count + member[index]
        rows = slice(0, height) if step_y < 0 else slice(1, height + 1)
        columns = slice(0, width) if step_x < 0 else slice(1, width + 1)
        values.append((total / count)[rows, columns])
        shares += [member[index][rows, columns] for index in (across, along, opposite)]
    bits = torch.arange(len(shares), dtype=torch.int32, device=disparity.device)[:, None, None]
    return torch.stack(values), (torch.stack(shares).int() << bits).sum(dim=0, dtype=torch.int32)


def slopes(disparity: Tensor, right: Tensor) -> Tensor:
    """Change of disparity over one pixel to the right, from the neighbors on the same surface."""
    step = right * (disparity[:, 1:] - disparity[:, :-1])
    total = F.pad(step, (0, 1)) + F.pad(step, (1, 0))
    count = F.pad(right, (0, 1)).to(step.dtype) + F.pad(right, (1, 0)).to(step.dtype)
    return total / count.clamp(min=1.0)
