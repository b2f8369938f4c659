"""From a batch and its noise to the model's predictions, and from those to the losses that a step minimizes.

RGB: velocity (eq. 6 of arXiv 2606.13676). Depth: clean depth on measured pixels. Self-distillation: eq. 8. A term of
the user's own is any function ``term(prediction, batch, noise) -> (B,)`` that ``recipe.terms`` names: its values are
averaged over the global batch and added.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..mforce_core.model.config import ConfigError
from ..mforce_core.model.tokens import tokens_to_patches, unpatchify
from ..mforce_core.release import MIN_DEPTH_TIME
from .config import RecipeConfig
from .noise import Noise, noisy_depth, noisy_rgb
from .recipe import Batch

#: Floor of the relative weighting: a pixel at 1/10 of the map's mean depth weighs as much as one nearer still.
_MIN_RELATIVE = 0.1

#: Resolutions of the gradient-matching loss, each half of the one before (Ranftl et al., arXiv 1907.01341, eq. 11).
_SCALES = 4

#: A transformer or its compiled form: (rgb, depth, text, t_rgb, t_depth, grid) -> (velocity, depth_x0).
Denoiser = Callable[..., tuple[Tensor, Tensor]]


class Prediction(NamedTuple):
    """``velocity`` (B, N, C) of the latents; ``depth`` (B, N, p * p) clean depth, None where the batch has none;
    ``teacher`` (B, N, C) the frozen text-to-image model's velocity, None where nothing is distilled."""

    velocity: Tensor
    depth: Tensor | None
    teacher: Tensor | None


class Totals(NamedTuple):
    """What the losses of a whole global batch are divided by: its samples and its counted depth pixels.

    A process sees only its rows, a forward pass perhaps only some of those; dividing sums by totals makes their losses
    add up to what one process would have computed on all rows at once.
    """

    rows: int
    pixels: float


class Errors(NamedTuple):
    """A stream's error (B,) by sample, its noise level (B,), and which samples have one, for a look at the losses by
    noise level."""

    error: Tensor
    time: Tensor
    counted: Tensor


class Losses(NamedTuple):
    """``terms``: this batch's share of each loss of a step; their sum is minimized. ``errors`` by stream, detached."""

    terms: dict[str, Tensor]
    errors: dict[str, Errors]


#: A loss that a user adds.
Term = Callable[[Prediction, Batch, Noise], Tensor]


def predict(model: Denoiser, teacher: Denoiser | None, batch: Batch, noise: Noise) -> Prediction:
    """Run the student, and the teacher on the same noisy image."""
    rgb, original = noisy_rgb(batch, noise), None
    if teacher is not None:
        with torch.no_grad():
            original, _ = teacher(rgb, None, batch.text, noise.t_rgb, None, batch.grid)
    depth = None
    if batch.depth is not None and noise.depth is not None and noise.t_depth is not None:
        depth = noisy_depth(batch.depth, noise.depth, noise.t_depth)
    velocity, depth_x0 = model(rgb, depth, batch.text, noise.t_rgb, noise.t_depth, batch.grid)
    return Prediction(velocity, depth_x0 if depth is not None else None, original)


def losses(
    prediction: Prediction,
    batch: Batch,
    noise: Noise,
    recipe: RecipeConfig,
    totals: Totals,
    added: Mapping[str, Term],
) -> Losses:
    """The losses of a batch; without depth this is flow matching on RGB latents alone.

    A stream that is clean in a sample has nothing to predict there and no loss.
    """
    noisy = noise.t_rgb > 0
    error = squared_error(prediction.velocity, noise.rgb - batch.rgb)
    terms = {"rgb": (error * noisy).sum() / totals.rows}
    errors = {"rgb": Errors(error.detach(), noise.t_rgb, noisy)}
    if prediction.depth is not None and batch.depth is not None and noise.t_depth is not None:
        counted = counted_pixels(batch.depth, noise.t_depth)
        squared = depth_error(prediction.depth, batch.depth, noise.t_depth, recipe.depth_weighting)
        by_sample, pixels = (squared * counted).sum((1, 2)), counted.sum((1, 2))
        terms["depth"] = recipe.depth_loss_weight * by_sample.sum() / max(1.0, totals.pixels)
        errors["depth"] = Errors(by_sample.detach() / pixels.clamp(min=1), noise.t_depth, pixels > 0)
        if recipe.gradient_weight:
            matching = gradient_error(prediction.depth, batch.depth, counted, batch.grid)
            terms["gradient"] = recipe.gradient_weight * matching.sum() / totals.rows
        if prediction.teacher is not None:
            weight = recipe.distillation_high * noise.t_depth + recipe.distillation_low * (1 - noise.t_depth)
            distance = squared_error(prediction.velocity, prediction.teacher.float())
            terms["distillation"] = (distance * weight * noisy).sum() / totals.rows
    for name, term in added.items():
        terms[name] = term(prediction, batch, noise).sum() / totals.rows
    return Losses(terms, errors)


def squared_error(velocity: Tensor, target: Tensor) -> Tensor:
    """Mean over each sample, (B,)."""
    return (velocity.float() - target).square().mean((1, 2))


def counted_pixels(clean: Tensor, t_depth: Tensor) -> Tensor:
    """Measured pixels of samples whose depth is noisy: the ones with something to predict; bool, (B, N, p * p)."""
    return (clean > 0) & (t_depth > 0)[:, None, None]


def depth_error(prediction: Tensor, clean: Tensor, t_depth: Tensor, weighting: str) -> Tensor:
    """Squared error of the predicted clean depth, weighted; (B, N, p * p), zero outside :func:`counted_pixels`.

    ``relative`` divides the error by the distance to the nearer end of (0, 2): there the derivative of the contraction
    makes it the relative error of depth itself, which AbsRel measures. ``velocity`` divides it by t: the velocity that
    x_0 implies is (x_t - x_0) / t, so this is its squared error (eq. 7), floored as in sampling.
    """
    error = torch.where(counted_pixels(clean, t_depth), prediction - clean, torch.zeros_like(clean))
    return weighted_depth(error, clean, t_depth, weighting).square()


def weighted_depth(error: Tensor, clean: Tensor, t_depth: Tensor, weighting: str) -> Tensor:
    """An error of clean depth, divided as :func:`depth_error` says."""
    if weighting == "relative":
        return error / torch.minimum(clean, 2 - clean).clamp(min=_MIN_RELATIVE)
    if weighting == "velocity":
        return error / t_depth.clamp(min=MIN_DEPTH_TIME)[:, None, None]
    return error


def gradient_error(prediction: Tensor, clean: Tensor, counted: Tensor, grid: tuple[int, int]) -> Tensor:
    """Difference of the spatial gradients of predicted and clean depth, by sample; (B,).

    At every scale the mean, over pairs of neighbors that are both counted, of the absolute difference of the error
    between them, horizontally and vertically; summed over scales. Pairs lie across tokens as well as inside them.
    """
    error, known = (unpatchify(tokens_to_patches(tokens, grid)) for tokens in (prediction - clean, counted))
    total = torch.zeros_like(error[:, 0, 0])
    for scale in range(_SCALES):
        step = 2**scale
        part, seen = error[:, ::step, ::step], known[:, ::step, ::step]
        for axis in (1, 2):
            length = part.shape[axis] - 1
            both = seen.narrow(axis, 0, length) & seen.narrow(axis, 1, length)
            difference = torch.where(both, part.diff(dim=axis), 0).abs()
            total = total + difference.sum((1, 2)) / both.sum((1, 2)).clamp(min=1)
    return total


def load_terms(names: tuple[str, ...]) -> dict[str, Term]:
    """The user's losses, by the names of their functions.

    Args:
        names: ``module:function`` of a module that Python finds, or ``file.py:function``.

    Raises:
        ConfigError: no such module, file or function; two of one name.
    """
    terms: dict[str, Term] = {}
    for name in names:
        place, _, function = name.rpartition(":")
        try:
            term = getattr(_module(place), function)
        except (ImportError, OSError, AttributeError, ValueError) as error:
            raise ConfigError(f"recipe.terms: {name} cannot be loaded ({error}): write module:function") from error
        if not callable(term) or function in {"rgb", "depth", "gradient", "distillation", *terms}:
            raise ConfigError(f"recipe.terms: {name} is no function, or another loss has its name")
        terms[function] = term
    return terms


def _module(place: str):
    if not place.endswith(".py"):
        return import_module(place)
    spec = spec_from_file_location(Path(place).stem, place)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
