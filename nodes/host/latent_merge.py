"""Two LATENTs, of a picture and of depth, as one joint LATENT.

Relies on: core's ``noise_mask`` (B or 1, 1, H, W) and ``batch_index`` entries of a LATENT.
"""

from __future__ import annotations

import torch
from comfy.nested_tensor import NestedTensor
from torch import Tensor

from ...mforce_core.depth.codec import mean_depth
from ...mforce_core.placement import STRETCH
from ...mforce_core.release import DEPTH_CHANNELS, PATCH_SIZE, RGB_CHANNELS
from .depth_latent import decode_stream, encode_stream
from .image_fit import fit_depth, place
from .joint_latent import REPEATS, Latent, depth_record, depth_stream, empty_stream, joint, split


def merge_latents(rgb: Latent | None, depth: Latent | None, *, keep_rgb: bool, keep_depth: bool) -> Latent:
    """A joint LATENT; a stream without a latent of its own starts from noise.

    Args:
        rgb: LATENT of a picture, or a joint one. One of the two must be given.
        depth: LATENT of a depth stream, or a joint one; it is resized to the picture's grid.
        keep_rgb, keep_depth: freeze a stream.

    Raises:
        ValueError: a latent of another model, or batches that do not fit together.
    """
    picture = None if rgb is None else _picture_stream(rgb)
    stream = None if depth is None else depth_stream(depth)
    record = {} if depth is None else depth_record(depth)
    if picture is None:
        assert stream is not None
        picture = empty_stream(stream.shape[0], RGB_CHANNELS, *stream.shape[2:])
    if stream is None:
        stream = empty_stream(picture.shape[0], DEPTH_CHANNELS, *picture.shape[2:])
    elif stream.shape[2:] != picture.shape[2:]:
        stream, record = _regrid(stream, record, picture.shape[2], picture.shape[3])
    picture, stream = _match_batches(picture, stream)

    latent = joint(picture, stream) | record
    for source in (rgb, depth):
        for places in ("batch_index", REPEATS):
            if source is not None and len(source.get(places, ())) == len(picture):
                latent[places] = source[places]
    masks = [_mask(picture, rgb, depth, keep_rgb), _mask(stream, depth, rgb, keep_depth)]
    if any(mask is not None for mask in masks):
        filled = zip(masks, (picture, stream), strict=True)
        latent["noise_mask"] = NestedTensor(
            [torch.ones_like(part[:, :1]) if mask is None else mask for mask, part in filled]
        )
    return latent


def _picture_stream(latent: Latent) -> Tensor:
    samples = split(latent)[0] if latent["samples"].is_nested else latent["samples"]
    if samples.ndim != 4 or samples.shape[1] != RGB_CHANNELS:
        raise ValueError(
            f"the latent at rgb has shape {tuple(samples.shape)}, but this model's pictures have {RGB_CHANNELS}"
            " channels; encode the picture with the VAE of Load MF Model or the FLUX.2 VAE."
        )
    return samples


def _regrid(stream: Tensor, record: Latent, rows: int, columns: int) -> tuple[Tensor, Latent]:
    """A depth stream (B, 256, h, w) on another grid, resized as the depth maps that it holds."""
    maps, valid = decode_stream(stream, record)
    maps, valid = fit_depth(maps, valid, place(maps, columns * PATCH_SIZE, rows * PATCH_SIZE, STRETCH))
    kept: Latent = {"depth_valid": valid}
    if "depth_scale" in record:
        kept["depth_scale"] = record["depth_scale"].to(maps.device) * mean_depth(maps, valid).float()
    return encode_stream(maps, valid), kept


def _match_batches(rgb: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    batch = max(rgb.shape[0], depth.shape[0])
    if {rgb.shape[0], depth.shape[0]} - {1, batch}:
        raise ValueError(
            f"there are {rgb.shape[0]} pictures for {depth.shape[0]} depth maps; connect one, or equally many of both."
        )
    return rgb.expand(batch, -1, -1, -1).contiguous(), depth.expand(batch, -1, -1, -1).contiguous()


def _mask(stream: Tensor, own: Latent | None, other: Latent | None, keep: bool) -> Tensor | None:
    """Noise mask (B or 1, 1, H, W) of a stream: its own, else the other's where the stream has something to keep."""
    if keep:
        return torch.zeros_like(stream[:, :1])
    if own is None:
        return None
    for source in (own, other):
        mask = None if source is None else source.get("noise_mask")
        if mask is not None and not mask.is_nested:
            return mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return None
