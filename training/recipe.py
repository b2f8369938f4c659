"""The Modality Forcing recipe (Duisterhof et al., arXiv 2606.13676) as functions of a batch.

Disclosed by the paper: the task mix, velocity loss on RGB, x-prediction loss on the valid pixels of depth, missing
pixels fed as noise, self-distillation weighted ``high * t_depth + low * (1 - t_depth)``. Open, hence options: the time
distribution (logit-normal with FLUX.2's shift), the weights, the weighting of depth errors.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..mforce_core.depth.codec import encode_depth, valid_pixels
from ..mforce_core.model.tokens import patches_to_tokens
from .config import RecipeConfig

#: Floor of the relative weighting: a pixel at 1/10 of the map's mean depth weighs as much as one nearer still.
_MIN_RELATIVE = 0.1


#: A transformer or its compiled form: (rgb, depth, text, t_rgb, t_depth, grid) -> (velocity, depth_x0).
Denoiser = Callable[..., tuple[Tensor, Tensor]]


class Batch(NamedTuple):
    """``rgb`` (B, N, C) clean latents, ``text`` (B, T, D), ``depth`` (B, h, w, p * p) clean tokens, 0 = not measured;
    None where only images are trained."""

    rgb: Tensor
    depth: Tensor | None
    text: Tensor
    grid: tuple[int, int]


class Noise(NamedTuple):
    """Noise levels (B,) and the Gaussian noise of the streams, in token shapes; no depth where the batch has none."""

    t_rgb: Tensor
    t_depth: Tensor | None
    rgb: Tensor
    depth: Tensor | None


def logit_normal_times(count: int, mu: float, generator: torch.Generator) -> Tensor:
    """(count,) noise levels ``sigmoid(mu + n)``: a logit-normal draw after the shift with sigma = 1."""
    return torch.sigmoid(mu + torch.randn(count, generator=generator))


class Totals(NamedTuple):
    """What the losses of a whole global batch are divided by: its samples and its counted depth pixels.

    A process sees only its rows, a forward pass perhaps only some of those; dividing sums by totals makes their losses
    add up to what one process would have computed on all rows at once.
    """

    rows: int
    pixels: float


def row_generator(seed: int, step: int, row: int) -> torch.Generator:
    """Every random draw of a row of a global batch: a function of (seed, step, row) alone."""
    state = np.random.SeedSequence((seed, step, row)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def drop_captions(text: Tensor, null_text: Tensor, probability: float, rows: Sequence[torch.Generator]) -> Tensor:
    """Some captions (B, T, D) become the empty one (T, D), for classifier-free guidance."""
    dropped = torch.tensor([float(torch.rand((), generator=row)) < probability for row in rows])
    return torch.where(dropped[:, None, None], null_text, text)


def draw_noise(batch: Batch, recipe: RecipeConfig, rows: Sequence[torch.Generator]) -> Noise:
    """Independent noise levels of the streams; i2d samples get t_rgb = 0, d2i samples t_depth = 0.

    A sample without any measured depth is one whose depth is all noise: t_depth = 1, and its image is always trained.
    """
    t_rgb, t_depth = (torch.cat([logit_normal_times(1, recipe.time_mu, row) for row in rows]) for _ in range(2))
    task = torch.cat([torch.rand(1, generator=row) for row in rows])
    rgb = torch.stack([torch.randn(batch.rgb.shape[1:], generator=row) for row in rows])
    if batch.depth is None:
        return Noise(t_rgb, None, rgb, None)
    tokens = patches_to_tokens(batch.depth)
    depth = torch.stack([torch.randn(tokens.shape[1:], generator=row) for row in rows])
    unknown = (tokens == 0).flatten(1).all(1)
    i2d = (task < recipe.probability_i2d) & ~unknown
    d2i = (task > 1 - recipe.probability_d2i) & ~unknown
    t_depth = t_depth.masked_fill(d2i, 0).masked_fill(unknown, 1)
    return Noise(t_rgb.masked_fill(i2d, 0), t_depth, rgb, depth)


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
    return tokens.masked_fill(unknown[..., None], 0)


def noisy_depth(clean: Tensor, noise: Tensor, t_depth: Tensor) -> Tensor:
    """``(1 - t) x_0 + t eps`` where measured, pure noise elsewhere, at every t; tokens (B, N, p * p)."""
    t = t_depth[:, None, None]
    return torch.where(clean > 0, torch.lerp(clean, noise, t), noise)


def counted_pixels(clean: Tensor, t_depth: Tensor) -> Tensor:
    """Measured pixels of samples whose depth is noisy: the ones with something to predict; bool, (B, N, p * p)."""
    return (clean > 0) & (t_depth > 0)[:, None, None]


def depth_loss(prediction: Tensor, clean: Tensor, t_depth: Tensor, weighting: str, pixels: float) -> Tensor:
    """Squared error of the predicted clean depth over :func:`counted_pixels`, divided by ``pixels``; scalar.

    ``relative`` divides the error by the distance to the nearer end of (0, 2): there the derivative of the contraction
    makes it the relative error of depth itself, which AbsRel measures.
    """
    counted = counted_pixels(clean, t_depth)
    error = torch.where(counted, prediction - clean, torch.zeros_like(clean))
    if weighting == "relative":
        error = error / torch.minimum(clean, 2 - clean).clamp(min=_MIN_RELATIVE)
    return error.square().sum() / max(1.0, pixels)


def velocity_loss(velocity: Tensor, target: Tensor, weight: Tensor, rows: int) -> Tensor:
    """Squared error, mean over a sample and weighted (B,), summed over samples and divided by ``rows``; scalar."""
    return ((velocity.float() - target).square().mean((1, 2)) * weight).sum() / rows


def losses(
    model: Denoiser, teacher: Denoiser | None, batch: Batch, noise: Noise, recipe: RecipeConfig, totals: Totals
) -> dict[str, Tensor]:
    """This batch's share of the losses of a step, by name; their sum is minimized.

    Args:
        model: the student, called like :class:`..mforce_core.model.transformer.ModalityForcingTransformer`.
        teacher: the frozen text-to-image model that the student started from; None leaves self-distillation out.
        batch, noise: without depth this is flow matching on RGB latents alone.
        totals: of the global batch.
    """
    rgb = torch.lerp(batch.rgb, noise.rgb, noise.t_rgb[:, None, None])
    target = noise.rgb - batch.rgb
    if batch.depth is None or noise.depth is None or noise.t_depth is None:
        velocity, _ = model(rgb, None, batch.text, noise.t_rgb, None, batch.grid)
        return {"rgb": velocity_loss(velocity, target, torch.ones_like(noise.t_rgb), totals.rows)}

    original = None
    if teacher is not None and recipe.distils:
        with torch.no_grad():
            original, _ = teacher(rgb, None, batch.text, noise.t_rgb, None, batch.grid)
    clean = patches_to_tokens(batch.depth)
    depth = noisy_depth(clean, noise.depth, noise.t_depth)
    velocity, depth_x0 = model(rgb, depth, batch.text, noise.t_rgb, noise.t_depth, batch.grid)
    noisy_rgb = (noise.t_rgb > 0).float()
    error = depth_loss(depth_x0, clean, noise.t_depth, recipe.depth_weighting, totals.pixels)
    terms = {
        "rgb": velocity_loss(velocity, target, noisy_rgb, totals.rows),
        "depth": recipe.depth_loss_weight * error,
    }
    if original is not None:
        weight = recipe.distillation_high * noise.t_depth + recipe.distillation_low * (1 - noise.t_depth)
        terms["distillation"] = velocity_loss(velocity, original.float(), weight * noisy_rgb, totals.rows)
    return terms
