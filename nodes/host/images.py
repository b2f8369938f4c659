"""ComfyUI's pictures between nodes: IMAGE (B, H, W, C) in [0, 1], with or without alpha, and MASK (B, H, W).

Relies on: core's layout of both types. Load Image gives 3 or 4 channels, other packs also 1 or 2.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

#: Gray pictures lose this much of it to the compression of colors, and no more.
_COLORFUL = 0.05


def to_rgb(image: Tensor) -> Tensor:
    """IMAGE with 1 to 4 channels to 3: gray is repeated, an alpha channel is composited over white."""
    if image.shape[-1] in (2, 4):
        alpha = image[..., -1:]
        image = image[..., :-1] * alpha + (1 - alpha)
    return image if image.shape[-1] == 3 else image[..., :1].expand(*image.shape[:-1], 3)


def to_gray(image: Tensor) -> Tensor:
    """IMAGE (B, H, W, C) to (B, H, W) float32: the mean of its colors, exact where they are equal."""
    colors = image[..., : 1 if image.shape[-1] < 3 else 3].float()
    first = colors[..., 0]
    return torch.where((colors == first[..., None]).all(-1), first, colors.mean(-1))


def check_gray(image: Tensor) -> None:
    """Raise ValueError if an IMAGE that should hold depth has colors, as a preview of depth or a photo has."""
    if image.shape[-1] < 3:
        return
    colors = torch.nan_to_num(image[..., :3].float(), 0.0, 0.0, 0.0)
    high, low = colors.amax(-1), colors.amin(-1)
    if (high - low).mean() > _COLORFUL * high.abs().mean():
        raise ValueError(
            "the picture has colors, so it is a photo or a colored preview and holds no depth; connect a geometry, the"
            " raw output of Depth Detokenize, or a gray map."
        )


def looks_stretched(image: Tensor) -> bool:
    """Whether an IMAGE's numbers are those of a picture, 8-bit levels or stretched to 0..1, rather than distances."""
    numbers = to_gray(image)
    numbers = numbers[numbers.isfinite()]
    if not len(numbers) or numbers.min() < 0 or numbers.max() > 1:
        return False
    levels = numbers * 255
    return bool((numbers.min() == 0 and numbers.max() == 1) or (levels - levels.round()).abs().max() < 1e-4)


def opaque_pixels(image: Tensor) -> Tensor:
    """(B, H, W) bool: False where the picture is more than half transparent."""
    if image.shape[-1] in (2, 4):
        return image[..., -1] > 0.5
    return torch.ones(image.shape[:-1], dtype=torch.bool, device=image.device)


def resize_image(image: Tensor, height: int, width: int) -> Tensor:
    """IMAGE (B, H, W, 3) to another size, in [0, 1]."""
    if image.shape[1:3] == (height, width):
        return image
    channels_first = rearrange(image, "b h w c -> b c h w").float()
    scaled = interpolate(channels_first, (height, width), mode="bilinear", antialias=True)
    return rearrange(scaled.clamp(0.0, 1.0), "b c h w -> b h w c")


def match_image(image: Tensor, maps: Tensor) -> Tensor:
    """RGB pictures (B or 1, H', W', 3) at the size and number of depth maps (B, H, W): (B, H, W, 3), on the CPU.

    Raises:
        ValueError: the number of pictures is neither 1 nor that of the maps.
    """
    if image.shape[0] not in (1, maps.shape[0]):
        raise ValueError(
            f"there are {image.shape[0]} images for {maps.shape[0]} depth maps; connect one image, or one per map."
        )
    return resize_image(image.cpu(), *maps.shape[1:]).expand(*maps.shape, 3)


def match_mask(mask: Tensor, maps: Tensor) -> Tensor:
    """MASK (B or 1, H', W') as bool of the shape of depth maps (B, H, W).

    Raises:
        ValueError: the number of masks is neither 1 nor that of the maps.
    """
    mask = mask.reshape(-1, *mask.shape[-2:])
    if mask.shape[0] not in (1, maps.shape[0]):
        raise ValueError(
            f"there are {mask.shape[0]} masks for {maps.shape[0]} depth maps; connect one mask, or one per map."
        )
    if mask.shape[-2:] != maps.shape[-2:]:
        mask = interpolate(mask[:, None].float(), maps.shape[-2:], mode="nearest-exact")[:, 0]
    return (mask > 0.5).expand(maps.shape).to(maps.device)


def gray_image(maps: Tensor) -> Tensor:
    """Maps (B, H, W) as an IMAGE of three equal channels."""
    return maps[..., None].expand(*maps.shape, 3).contiguous()
