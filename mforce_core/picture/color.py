"""Colors: sRGB and linear light (IEC 61966-2-1), and sRGB in 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor


def to_linear(colors: Tensor) -> Tensor:
    """Linear light of sRGB in [0, 1]."""
    return torch.where(colors <= 0.04045, colors / 12.92, ((colors.clamp(min=0.0) + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """sRGB of linear light in [0, 1]."""
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=0.0) ** (1 / 2.4) - 0.055)


def to_bytes(colors: Tensor) -> Tensor:
    """Colors in [0, 1] as uint8; those beyond are clamped."""
    return (colors.float().clamp(0, 1) * 255).round().to(torch.uint8)
