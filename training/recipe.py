"""From rows of data to rows of training: which task a sample is for, its caption, and what is measured of its depth.

The paper (Duisterhof et al., arXiv 2606.13676) discloses the tasks' shares and that missing pixels are fed as noise;
which pixels dense data loses is a choice of this project.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..mforce_core.depth.codec import encode_depth, valid_pixels
from ..mforce_core.model.tokens import latents_to_tokens, patches_to_tokens
from .batches import EncodedBatch
from .config import RecipeConfig


class Batch(NamedTuple):
    """What a forward pass is about.

    ``rgb`` (B, N, C) clean latents, ``text`` (B, T, D), ``depth`` (B, N, p * p) clean tokens, 0 where not measured, or
    None where only images are trained; ``grid`` (h, w) with N = h * w.
    """

    rgb: Tensor
    depth: Tensor | None
    text: Tensor
    grid: tuple[int, int]


def row_generator(seed: int, step: int, row: int) -> torch.Generator:
    """Every random draw of a row of a global batch: a function of (seed, step, row) alone."""
    state = np.random.SeedSequence((seed, step, row)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def prepare(
    encoded: EncodedBatch,
    null_text: Tensor,
    caption_dropout: float,
    recipe: RecipeConfig,
    patch_size: int,
    rows: Sequence[torch.Generator],
) -> Batch:
    """Rows as the encoders left them, with captions and pixels dropped.

    Args:
        encoded: without depth, the batch trains images alone.
        null_text: (T, D) features of the empty caption.
        patch_size: side of a depth token in pixels.
        rows: a generator per row.
    """
    text = drop_captions(encoded.text, null_text, caption_dropout, rows)
    depth = None if encoded.depth is None else depth_tokens(encoded.depth, recipe, patch_size, rows)
    grid = (encoded.rgb.shape[2], encoded.rgb.shape[3])
    return Batch(latents_to_tokens(encoded.rgb).contiguous(), depth, text, grid)


def drop_captions(text: Tensor, null_text: Tensor, probability: float, rows: Sequence[torch.Generator]) -> Tensor:
    """Some captions (B, T, D) become the empty one (T, D), for classifier-free guidance."""
    dropped = torch.tensor([float(torch.rand((), generator=row)) < probability for row in rows])
    return torch.where(dropped[:, None, None], null_text, text)


class Tasks(NamedTuple):
    """Samples (B,) bool that are trained for one task; those of neither are joint."""

    i2d: Tensor
    d2i: Tensor


def draw_tasks(recipe: RecipeConfig, unknown: Tensor, rows: Sequence[torch.Generator]) -> Tasks:
    """A sample ``unknown`` (B,) bool, without any measured depth, is always joint."""
    draw = torch.cat([torch.rand(1, generator=row) for row in rows])
    return Tasks((draw < recipe.probability_i2d) & ~unknown, (draw > 1 - recipe.probability_d2i) & ~unknown)


def depth_tokens(depth: Tensor, recipe: RecipeConfig, patch_size: int, rows: Sequence[torch.Generator]) -> Tensor:
    """Encode maps (B, H, W), 0 where not measured, after dropping pixels at random; see :class:`Batch`.

    With ``recipe.depth_share`` below 1 every map first loses all but that share of its pixels, as if a sparse sensor
    had made it. A map that would lose every pixel keeps all; one that has none gives tokens of zeros.
    """
    measured, size = valid_pixels(depth), (depth.shape[1], depth.shape[2])
    if recipe.depth_share < 1:
        measured &= torch.stack([torch.rand(size, generator=row) < recipe.depth_share for row in rows])
    kept = measured & torch.stack([sparse_mask(size, recipe.sparse_probability, row) for row in rows])
    kept = torch.where(kept.flatten(1).any(1)[:, None, None], kept, measured)
    unknown = ~kept.flatten(1).any(1)[:, None, None]
    tokens = encode_depth(torch.where(unknown, torch.ones_like(depth), depth), kept | unknown, patch_size=patch_size)
    return patches_to_tokens(tokens.masked_fill(unknown[..., None], 0))


def sparse_mask(size: tuple[int, int], probability: float, row: torch.Generator) -> Tensor:
    """Which pixels of a map are kept as if measured, (H, W) bool.

    With ``probability`` a map loses pixels, in one of three ways with equal chance: random pixels stay (2% to 50%),
    scan lines stay (every 2nd to 8th row), or a rectangle is dropped.
    """
    height, width = size
    kept = torch.ones(size, dtype=torch.bool)

    def draw() -> float:
        return float(torch.rand((), generator=row))

    if draw() >= probability:
        return kept
    kind = draw()
    if kind < 1 / 3:
        share = 0.02 + 0.48 * draw()
        kept &= torch.rand(size, generator=row) < share
    elif kind < 2 / 3:
        every = 2 + int(draw() * 7)
        kept &= (torch.arange(height) % every == int(draw() * every))[:, None]
    else:
        tall, wide = int((0.2 + 0.5 * draw()) * height), int((0.2 + 0.5 * draw()) * width)
        top, left = int(draw() * (height - tall)), int(draw() * (width - wide))
        kept[top : top + tall, left : left + wide] = False
    return kept
