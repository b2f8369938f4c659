"""The noise that a batch starts from: which pictures share one, the seeds of those that do not, and its drawing.

Two entries of a LATENT say what the pictures of a batch are to each other. ``batch_index`` is core's: their places in
the batch that they were taken from. ``repeat_index`` is `.batches.repeat_pictures`'s: which repeat of its picture each
is. Frames of a clip are no repeats of each other, and the members of an ensemble are.

Relies on: ``comfy.sample.prepare_noise`` with nested tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import comfy.sample
import torch
from comfy.nested_tensor import NestedTensor
from torch import Tensor

from ...mforce_core.depth.codec import encode_depth, fill_missing
from ...mforce_core.model.tokens import latents_to_patches, patches_to_latents
from ...mforce_core.release import Mode
from .joint_latent import REPEATS, Latent
from .picture_noise import SEEDS

#: Options of ``same_noise``.
FOR_DEPTH, ALWAYS, NEVER = "image to depth", "always", "never"


def batch_seeds(latent: Latent, mode: Mode, seed: int, same_noise: str) -> list[int]:
    """The seeds of a LATENT's pictures; what has one seed has one noise.

    Args:
        seed: of the first picture.
        same_noise: `NEVER`: every picture has a seed of its own. `ALWAYS`: all have one, save repeats of a picture,
            which would be the same otherwise. `FOR_DEPTH`: that in image to depth alone.
    """
    count = latent["samples"].shape[0]
    if same_noise == ALWAYS or (same_noise == FOR_DEPTH and mode == "i2d"):
        repeats = latent.get(REPEATS, ())
        # Nodes that do not know of repeats leave those of the batch that they changed.
        return picture_seeds(count, seed, repeats if len(repeats) == count else [0] * count)
    return picture_seeds(count, seed, latent.get("batch_index"))


def picture_seeds(batch: int, seed: int, places: Sequence[int] | None = None) -> list[int]:
    """The seeds of a batch's pictures, counted on from that of the first by their places, by default 0, 1, 2..."""
    return [(seed + place) % SEEDS for place in (range(batch) if places is None else places)]


def draw_noise(rgb: Tensor, depth: Tensor, seeds: Sequence[int]) -> NestedTensor:
    """Starting noise for the streams of a batch, in which every picture has that of a single one with its seed."""
    one = NestedTensor([rgb[:1], depth[:1]])
    draws = [comfy.sample.prepare_noise(one, seed).unbind() for seed in seeds]
    return NestedTensor([torch.cat(streams) for streams in zip(*draws, strict=True)])


def noise_and_depth(rgb: Tensor, maps: Tensor, seeds: Sequence[int]) -> tuple[NestedTensor, Tensor]:
    """Starting noise of a batch, and the depth stream (B, 256, h, w) of maps (B, H, W) with the same noise in holes.

    Mixed with another noise to any level, holes would be noise of less than full strength.
    """
    patches = encode_depth(maps)
    noise = draw_noise(rgb, patches_to_latents(patches), seeds)
    missing = latents_to_patches(noise.unbind()[1])
    return noise, patches_to_latents(fill_missing(patches, missing)).contiguous()
