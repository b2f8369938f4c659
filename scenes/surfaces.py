"""Colors and patterns of the room and of the objects.

Colors are display-referred until `to_linear`; a pure power law keeps hue and saturation under any light
level, so the objects keep the hue their caption names and the room stays muted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .vocabulary import FLOORS, WALLS

GAMMA = 2.2

Color = tuple[Tensor, Tensor, Tensor]

# HSV (hue in degrees) of the two tones of each texture, in the vocabulary's order; all below 0.3 saturation.
FLOOR_TONES = (
    ((27.0, 0.27, 0.66), (27.0, 0.28, 0.52)),  # wooden: planks from the one to the other
    ((40.0, 0.05, 0.90), (220.0, 0.05, 0.32)),  # checkered: two squares
    ((205.0, 0.09, 0.78), (40.0, 0.04, 0.50)),  # tiled: tile, grout
    ((60.0, 0.03, 0.62), (60.0, 0.03, 0.50)),  # concrete: blotches from the one to the other
)
WALL_TONES = (
    ((50.0, 0.02, 0.97), (50.0, 0.02, 0.95)),  # white
    ((215.0, 0.04, 0.55), (215.0, 0.04, 0.53)),  # gray
    ((38.0, 0.20, 0.84), (38.0, 0.20, 0.82)),  # beige
    ((14.0, 0.28, 0.62), (30.0, 0.08, 0.76)),  # brick: brick, mortar
)
# Brighter than white: the point light only grazes the ceiling, which a real room's floor and walls light too.
CEILING_TONE = (50.0, 0.02, 1.22)


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Color:
    """Hue in degrees; saturation and value in [0, 1]."""

    def channel(offset: float) -> Tensor:
        k = torch.remainder(offset + hue / 60.0, 6.0)
        return value - value * saturation * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)

    return channel(5.0), channel(3.0), channel(1.0)


def to_linear(color: Color) -> Color:
    red, green, blue = (channel.clamp_min(0.0) ** GAMMA for channel in color)
    return red, green, blue


def cell_noise(x: Tensor, y: Tensor) -> Tensor:
    """A value in [0, 1) for each integer cell; the gain is low, so that rounding does not show."""
    wave = torch.sin(x * 12.9898 + y * 78.233) * 437.585
    return wave - wave.floor()


def blotches(x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    """Smooth noise of a few waves, in [0, 1]; x and y in meters."""
    waves = torch.sin(2.1 * x + 1.3 * y + phase) + torch.sin(-1.7 * x + 2.9 * y + 2.0 * phase)
    waves = waves + 0.6 * torch.sin(5.3 * x - 4.1 * y + 3.0 * phase) + 0.4 * torch.sin(9.7 * x + 8.3 * y)
    return 0.5 + waves / 6.0


def line_mask(position: Tensor, period: Tensor | float, width: float) -> Tensor:
    """1.0 on the lines of the given width (meters) at every multiple of the period."""
    offset = torch.remainder(position, period)
    return (offset < width).to(position.dtype)


def floor_mix(kind: Tensor, x: Tensor, z: Tensor, scale: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
    """Of the floor at (x, z): the share of the second tone, and a brightness factor."""
    x, z = x + phase, z + 3.1 * phase
    plank = 0.24 * scale
    column = torch.floor(x / plank)
    along = z + 5.0 * cell_noise(column, torch.zeros_like(column))
    row = torch.floor(along / (1.6 * scale))
    wood = 0.15 + 0.7 * cell_noise(column, row) + 0.12 * torch.sin(60.0 * x + 3.0 * torch.sin(2.5 * along))
    seam = torch.maximum(line_mask(x, plank, 0.016), line_mask(along, 1.6 * scale, 0.018))

    square = 0.55 * scale
    tile_x, tile_z = torch.floor(x / square), torch.floor(z / square)
    checker = torch.remainder(tile_x + tile_z, 2.0)
    grout = torch.maximum(line_mask(x, square, 0.03), line_mask(z, square, 0.03))
    tile_tone = 1.0 - 0.08 * cell_noise(tile_x, tile_z)
    concrete = blotches(x, z, 6.0 * phase)

    wooden, checkered, tiled = (kind == FLOORS.index(name) for name in ("wooden", "checkered", "tiled"))
    mix = torch.where(wooden, wood, torch.where(checkered, checker, torch.where(tiled, grout, concrete)))
    bright = torch.where(wooden, 1.0 - 0.35 * seam, torch.where(tiled, tile_tone, 1.0))
    return mix, bright


def wall_mix(kind: Tensor, along: Tensor, y: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
    """Of a wall at (along, y): the share of the second tone, and a brightness factor."""
    course_height, brick_length = 0.16, 0.44
    course = torch.floor(y / course_height)
    shifted = along + 10.0 + phase + 0.5 * brick_length * torch.remainder(course, 2.0)
    mortar = torch.maximum(line_mask(y, course_height, 0.022), line_mask(shifted, brick_length, 0.022))
    brick_tone = 1.0 - 0.22 * cell_noise(course, torch.floor(shifted / brick_length)) * (1.0 - mortar)
    is_brick = kind == WALLS.index("brick")
    skirting = 1.0 - 0.25 * ((y < 0.1) & ~is_brick).to(y.dtype)
    mix = torch.where(is_brick, mortar, blotches(along, y, phase))
    return mix, torch.where(is_brick, brick_tone, skirting)
