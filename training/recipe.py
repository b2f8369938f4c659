"""The Modality Forcing recipe (Duisterhof et al., arXiv 2606.13676) as functions of a batch.

Disclosed by the paper: the task mix, velocity loss on RGB, x-prediction loss on the valid pixels of depth, missing
pixels fed as noise, self-distillation weighted ``high * t_depth + low * (1 - t_depth)``. Open, hence options: the time
distribution (logit-normal with FLUX.2's shift), the weights, the weighting of depth errors.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..mforce_core.depth_codec import encode_depth
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


def draw_noise(batch: Batch, recipe: RecipeConfig, generator: torch.Generator) -> Noise:
    """Independent noise levels of the streams; i2d samples get t_rgb = 0, d2i samples t_depth = 0."""
    count = batch.rgb.shape[0]
    t_rgb = logit_normal_times(count, recipe.time_mu, generator)
    t_depth = logit_normal_times(count, recipe.time_mu, generator)
    task = torch.rand(count, generator=generator)
    rgb = torch.randn(batch.rgb.shape, generator=generator)
    if batch.depth is None:
        return Noise(t_rgb, None, rgb, None)
    depth = torch.randn(batch.depth.flatten(1, 2).shape, generator=generator)
    i2d, d2i = task < recipe.probability_i2d, task > 1 - recipe.probability_d2i
    return Noise(t_rgb.masked_fill(i2d, 0), t_depth.masked_fill(d2i, 0), rgb, depth)


def sparse_mask(shape: tuple[int, int, int], probability: float, generator: torch.Generator) -> Tensor:
    """Which pixels of a dense map are kept as if measured, (B, H, W) bool.

    With ``probability`` a map loses pixels, in one of three ways with equal chance: random pixels stay (2% to 50%),
    scan lines stay (every 2nd to 8th row), or a rectangle is dropped.
    """
    height, width = shape[1:]
    mask = torch.ones(shape, dtype=torch.bool)

    def draw() -> float:
        return float(torch.rand((), generator=generator))

    for kept in mask:
        if draw() >= probability:
            continue
        kind = draw()
        if kind < 1 / 3:
            kept &= torch.rand((height, width), generator=generator) < 0.02 + 0.48 * draw()
        elif kind < 2 / 3:
            every = 2 + int(draw() * 7)
            kept &= (torch.arange(height) % every == int(draw() * every))[:, None]
        else:
            tall, wide = int((0.2 + 0.5 * draw()) * height), int((0.2 + 0.5 * draw()) * width)
            top, left = int(draw() * (height - tall)), int(draw() * (width - wide))
            kept[top : top + tall, left : left + wide] = False
        if not kept.any():
            kept[height // 2, width // 2] = True
    return mask


def depth_tokens(depth: Tensor, recipe: RecipeConfig, patch_size: int, generator: torch.Generator) -> Tensor:
    """Encode dense maps (B, H, W) after dropping pixels at random; see :class:`Batch`."""
    batch, height, width = depth.shape
    mask = sparse_mask((batch, height, width), recipe.sparse_probability, generator)
    return encode_depth(depth, mask, patch_size=patch_size)


def noisy_depth(clean: Tensor, noise: Tensor, t_depth: Tensor) -> Tensor:
    """``(1 - t) x_0 + t eps`` where measured, pure noise elsewhere, at every t; tokens (B, N, p * p)."""
    t = t_depth[:, None, None]
    return torch.where(clean > 0, torch.lerp(clean, noise, t), noise)


def depth_loss(prediction: Tensor, clean: Tensor, t_depth: Tensor, weighting: str) -> Tensor:
    """Squared error of the predicted clean depth over measured pixels of samples whose depth is noisy; scalar.

    ``relative`` divides the error by the distance to the nearer end of (0, 2): there the derivative of the contraction
    makes it the relative error of depth itself, which AbsRel measures.
    """
    counted = (clean > 0) & (t_depth > 0)[:, None, None]
    error = torch.where(counted, prediction - clean, torch.zeros_like(clean))
    if weighting == "relative":
        error = error / torch.minimum(clean, 2 - clean).clamp(min=_MIN_RELATIVE)
    return error.square().sum() / counted.sum().clamp(min=1)


def velocity_loss(velocity: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error with one weight a sample (B,); scalar."""
    return ((velocity.float() - target).square().mean((1, 2)) * weight).mean()


def losses(
    model: Denoiser, teacher: Denoiser | None, batch: Batch, noise: Noise, recipe: RecipeConfig
) -> dict[str, Tensor]:
    """The losses of one step, by name; their sum is minimised.

    Args:
        model: the student, called like :class:`..mforce_core.transformer.ModalityForcingTransformer`.
        teacher: the frozen text-to-image model that the student started from; None leaves self-distillation out.
        batch, noise: without depth this is flow matching on RGB latents alone.
    """
    rgb = torch.lerp(batch.rgb, noise.rgb, noise.t_rgb[:, None, None])
    target = noise.rgb - batch.rgb
    if batch.depth is None or noise.depth is None or noise.t_depth is None:
        velocity, _ = model(rgb, None, batch.text, noise.t_rgb, None, batch.grid)
        return {"rgb": velocity_loss(velocity, target, torch.ones_like(noise.t_rgb))}

    clean_depth = batch.depth.flatten(1, 2)
    depth = noisy_depth(clean_depth, noise.depth, noise.t_depth)
    velocity, depth_x0 = model(rgb, depth, batch.text, noise.t_rgb, noise.t_depth, batch.grid)
    noisy_rgb = (noise.t_rgb > 0).float()
    terms = {
        "rgb": velocity_loss(velocity, target, noisy_rgb),
        "depth": recipe.depth_loss_weight * depth_loss(depth_x0, clean_depth, noise.t_depth, recipe.depth_weighting),
    }
    if teacher is not None and (recipe.distillation_high or recipe.distillation_low):
        with torch.no_grad():
            original, _ = teacher(rgb, None, batch.text, noise.t_rgb, None, batch.grid)
        weight = recipe.distillation_high * noise.t_depth + recipe.distillation_low * (1 - noise.t_depth)
        terms["distillation"] = velocity_loss(velocity, original.float(), weight * noisy_rgb)
    return terms
