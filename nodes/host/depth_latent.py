"""Between depth maps and the depth stream of a LATENT, as nodes hold them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...mforce_core.depth.codec import decode_depth, encode_depth, fill_missing
from ...mforce_core.model.tokens import latents_to_patches, patches_to_latents, patchify, unpatchify
from .joint_latent import PER_SAMPLE, Latent


def encode_stream(maps: Tensor, valid: Tensor, seed: int = 0) -> Tensor:
    """Depth (B, H, W) and its valid pixels to a stream (B, 256, h, w); noise of ``seed`` stands where depth is missing.

    Raises:
        DepthError: a map without one valid pixel.
    """
    patches = encode_depth(maps, valid)
    noise = torch.randn(patches.shape, generator=torch.Generator().manual_seed(seed))
    return patches_to_latents(fill_missing(patches, noise)).contiguous()


def fill_anew(stream: Tensor, record: Latent, noise: Tensor) -> Tensor:
    """A stream (B, 256, h, w) with this noise, of its shape, in the pixels without a measurement.

    Mixed with the same noise to any level such pixels stay noise of full strength; of two noises they would not.

    Args:
        record: what the LATENT says about its depth; without ``depth_valid`` the stream stays as it is.

    Raises:
        ValueError: that was said about other pictures or another size.
    """
    valid = record.get("depth_valid")
    if valid is None:
        return stream
    _check_record(record, unpatchify(latents_to_patches(stream)))
    known = patches_to_latents(patchify(valid.to(stream.device), math.isqrt(stream.shape[1])))
    return torch.where(known, stream, noise.to(stream))


def decode_stream(stream: Tensor, record: Latent) -> tuple[Tensor, Tensor]:
    """Relative depth (B, H, W) of a stream (B, 256, h, w), 0 where not valid, and its valid pixels.

    Args:
        record: what the LATENT says about its depth; its ``depth_valid`` narrows the valid pixels.

    Raises:
        ValueError: that was said about other pictures or another size.
    """
    maps = decode_depth(latents_to_patches(stream).float())
    _check_record(record, maps)
    valid = torch.isfinite(maps)
    if "depth_valid" in record:
        valid &= record["depth_valid"].to(valid.device)
    return torch.where(valid, maps, torch.zeros_like(maps)), valid


def _check_record(record: Latent, maps: Tensor) -> None:
    """Nodes of other packs that cut or resize a latent do not know what it says about its depth."""
    for name in PER_SAMPLE & record.keys():
        if len(record[name]) not in (1, len(maps)):
            raise ValueError(
                f"the latent holds {len(maps)} depth maps, but what it notes about depth is of {len(record[name])}: for"
                " batches of this model's latents use MF Latent From Batch and MF Repeat Latent."
            )
    valid = record.get("depth_valid")
    if valid is not None and valid.shape[1:] != maps.shape[1:]:
        (rows, columns), (height, width) = valid.shape[1:], maps.shape[1:]
        raise ValueError(
            f"the depth stream was resized from {columns}x{rows} to {width}x{height} as if it were a picture, which"
            " depth does not survive: connect it at its own size to MF Merge Latent, together with a picture of the new"
            " size."
        )
