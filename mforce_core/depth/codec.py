"""Between a depth map and the depth stream's tokens.

A map is divided by its mean and contracted to (0, 2), d for d <= 1 and 2 - 1/d beyond, so that near surfaces keep
their resolution and far ones stay bounded; then cut in patches. Scale is lost: decoded depth is relative.
"""

import torch
from torch import Tensor

from ..model.tokens import patchify, unpatchify
from ..release import PATCH_SIZE


class DepthError(ValueError):
    """A depth map that cannot be encoded."""


def contract(depth: Tensor) -> Tensor:
    """[0, inf) -> [0, 2), elementwise."""
    return torch.where(depth <= 1, depth, 2 - 1 / depth.clamp(min=1))


def expand(z: Tensor) -> Tensor:
    """Inverse of :func:`contract`, as the release computes it: sign-symmetric, with a pole at |z| = 2."""
    m = z.abs().clamp(min=1).square()
    return z / (2 * m.sqrt() - m)


def valid_pixels(depth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Pixels that carry a measurement: finite, positive and, where a mask is given, inside it; bool, depth's shape."""
    usable = torch.isfinite(depth) & (depth > 0)
    return usable if valid is None else usable & valid.bool()


def encode_depth(depth: Tensor, valid: Tensor | None = None, *, patch_size: int = PATCH_SIZE) -> Tensor:
    """Depth maps to depth-stream tokens, each map normalized by the mean of its own valid pixels.

    Args:
        depth: (B, H, W), positive, any unit; zeros, negatives, NaN and infinities are pixels without measurement.
        valid: (B, H, W) mask of usable pixels; None: every positive finite pixel.
        patch_size: side of a patch in pixels; H and W are multiples of it.

    Returns:
        (B, H / p, W / p, p * p) float32. Pixels without measurement are 0, which no measurement is: replace them with
        noise before the tokens enter the model (see :func:`fill_missing`).

    Raises:
        DepthError: wrong rank, a size off the patch grid, a map without one valid pixel.
    """
    if depth.ndim != 3:
        raise DepthError(f"depth must be (B, H, W), got shape {tuple(depth.shape)}")
    if valid is not None and valid.shape != depth.shape:
        raise DepthError(f"the valid mask {tuple(valid.shape)} must have the depth's shape {tuple(depth.shape)}")
    height, width = depth.shape[1:]
    if height % patch_size or width % patch_size or not height or not width:
        raise DepthError(
            f"depth is {width}x{height}; width and height must be multiples of {patch_size}: resize or letterbox it"
        )
    depth = depth.float()
    usable = valid_pixels(depth, valid)
    mean = mean_depth(depth, usable)
    if mean.isnan().any():
        raise DepthError(
            f"depth map {int(mean.isnan().nonzero()[0])} has no valid pixel: every one is zero, negative, NaN, infinite"
            " or masked"
        )
    known = _widest(torch.where(usable, depth, torch.zeros_like(depth)))
    return patchify(contract((known / mean[:, None, None]).float()), patch_size)


def mean_depth(depth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over each map's valid pixels (B,), the scale that :func:`encode_depth` divides by; NaN where there is none.

    Depth (B, H, W) and the mask as there. In float64 where the device has it.
    """
    usable = valid_pixels(depth, valid)
    known = _widest(torch.where(usable, depth, torch.zeros_like(depth)))
    return known.sum((1, 2)) / usable.sum((1, 2))


def _widest(values: Tensor) -> Tensor:
    """float64, which Apple's GPUs do not have."""
    return values if values.device.type == "mps" else values.double()


def fill_missing(tokens: Tensor, noise: Tensor) -> Tensor:
    """Put noise where :func:`encode_depth` left pixels without measurement; both of one shape."""
    return torch.where(tokens > 0, tokens, noise.to(tokens))


def decode_depth(tokens: Tensor) -> Tensor:
    """Depth-stream tokens to relative depth.

    Args:
        tokens: (B, h, w, p * p) clean depth predictions.

    Returns:
        (B, h * p, w * p) float32, larger = farther; positive and finite, or NaN where the prediction lies outside
        (0, 2), which no depth encodes to.
    """
    z = unpatchify(tokens.float())
    depth = expand(z)
    usable = (z > 0) & (z < 2) & torch.isfinite(depth)
    return torch.where(usable, depth, torch.full_like(depth, torch.nan))
