"""From rows of data to rows of training: which task a sample is for, its caption, and what is measured of its depth.

The paper (Duisterhof et al., arXiv 2606.13676) discloses the tasks' shares and that missing pixels are fed as noise;
which pixels dense data loses is a choice of this project.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..mforce_core.depth.codec import encode_depth, valid_pixels
from ..mforce_core.model.tokens import latents_to_tokens, patches_to_tokens
from .batches import EncodedBatch
from .config import RecipeConfig
from .draws import Draws


class Batch(NamedTuple):
    """What a forward pass is about.

    ``rgb`` (B, N, C) clean latents, ``text`` (B, T, D), ``depth`` (B, N, p * p) clean tokens, 0 where not measured, or
    None where only images are trained; ``grid`` (h, w) with N = h * w.
    """

    rgb: Tensor
    depth: Tensor | None
    text: Tensor
    grid: tuple[int, int]


def prepare(
    encoded: EncodedBatch,
    null_text: Tensor,
    caption_dropout: float,
    recipe: RecipeConfig,
    patch_size: int,
    draws: Draws,
) -> Batch:
    """Rows as the encoders left them, with captions and pixels dropped.

    Args:
        encoded: without depth, the batch trains images alone.
        null_text: (T, D) features of the empty caption.
        patch_size: side of a depth token in pixels.
    """
    text = drop_captions(encoded.text, null_text, caption_dropout, draws)
    depth = None if encoded.depth is None else depth_tokens(encoded.depth, recipe, patch_size, draws)
    grid = (encoded.rgb.shape[2], encoded.rgb.shape[3])
    return Batch(latents_to_tokens(encoded.rgb).contiguous(), depth, text, grid)


def drop_captions(text: Tensor, null_text: Tensor, probability: float, draws: Draws) -> Tensor:
    """Some captions (B, T, D) become the empty one (T, D), for classifier-free guidance."""
    return torch.where((draws.uniform() < probability)[:, None, None], null_text, text)


class Tasks(NamedTuple):
    """Samples (B,) bool that are trained for one task; those of neither are joint."""

    i2d: Tensor
    d2i: Tensor


def draw_tasks(recipe: RecipeConfig, unknown: Tensor, draws: Draws) -> Tasks:
    """A sample ``unknown`` (B,) bool, without any measured depth, is always joint."""
    draw = draws.uniform()
    return Tasks((draw < recipe.probability_i2d) & ~unknown, (draw > 1 - recipe.probability_d2i) & ~unknown)


def depth_tokens(depth: Tensor, recipe: RecipeConfig, patch_size: int, draws: Draws) -> Tensor:
    """Encode maps (B, H, W), 0 where not measured, after dropping pixels at random; see :class:`Batch`.

    With ``recipe.depth_share`` below 1 every map first loses all but that share of its pixels, as if a sparse sensor
    had made it. A map that would lose every pixel keeps all; one that has none gives tokens of zeros.
    """
    measured, size = valid_pixels(depth), (depth.shape[1], depth.shape[2])
    if recipe.depth_share < 1:
        measured &= draws.uniform(*size) < recipe.depth_share
    kept = measured & sparse_masks(size, recipe.sparse_probability, draws)
    kept = torch.where(kept.flatten(1).any(1)[:, None, None], kept, measured)
    unknown = ~kept.flatten(1).any(1)[:, None, None]
    tokens = encode_depth(torch.where(unknown, torch.ones_like(depth), depth), kept | unknown, patch_size=patch_size)
    return patches_to_tokens(tokens.masked_fill(unknown[..., None], 0))


def sparse_masks(size: tuple[int, int], probability: float, draws: Draws) -> Tensor:
    """Which pixels of the maps are kept as if measured, (B, H, W) bool.

    With ``probability`` a map loses pixels, in one of three ways with equal chance: random pixels stay (2% to 50%),
    scan lines stay (every 2nd to 8th row), or a rectangle is dropped.
    """
    height, width = size
    loses, kind, first, second, third, fourth = draws.uniform(6)[:, :, None, None].unbind(1)
    row = torch.arange(height, device=kind.device)[:, None]
    column = torch.arange(width, device=kind.device)

    points = draws.uniform(*size) < 0.02 + 0.48 * first
    every = 2 + (first * 7).long()
    lines = row % every == (second * every).long()
    tall, wide = ((0.2 + 0.5 * first) * height).long(), ((0.2 + 0.5 * second) * width).long()
    top, left = (third * (height - tall)).long(), (fourth * (width - wide)).long()
    hole = (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide)

    kept = torch.where(kind < 1 / 3, points, torch.where(kind < 2 / 3, lines, ~hole))
    return kept | (loses >= probability)
