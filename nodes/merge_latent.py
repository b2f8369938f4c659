"""Node: MF Merge Latent."""

from __future__ import annotations

import torch
from comfy.nested_tensor import NestedTensor
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.depth.codec import mean_depth
from ..mforce_core.picture.placement import STRETCH
from ..mforce_core.release import DEPTH_CHANNELS, PATCH_SIZE, RGB_CHANNELS
from .host.depth_latent import decode_stream, encode_stream
from .host.image_fit import fit_depth, place
from .host.joint_latent import (
    CATEGORY,
    Latent,
    depth_record,
    depth_stream,
    empty_stream,
    joint,
    split,
)

MERGE = "MF Merge Latent"


class MFMergeLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFMergeLatent",
            display_name=MERGE,
            category=CATEGORY,
            description=(
                "Make a joint latent of a picture's latent and a depth stream, for image to image, depth to depth and"
                " inpainting. A stream that is not connected is made from noise."
            ),
            search_aliases=["modality forcing", "join latent", "combine latent", "img2img", "inpaint", "nested latent"],
            inputs=[
                io.Latent.Input(
                    "rgb",
                    optional=True,
                    tooltip=(
                        "Latent of the picture: VAE Encode, Latent Upscale, Set Latent Noise Mask, MF Split Latent..."
                    ),
                ),
                io.Latent.Input(
                    "depth",
                    optional=True,
                    tooltip=(
                        "Depth stream: Encode Depth, MF Sampler, MF Split Latent. Where its size is another than the"
                        " picture's, it is resized as a depth map."
                    ),
                ),
                io.Boolean.Input(
                    "keep_rgb", default=False, tooltip="Keep the picture as it is and make depth for it (i2d)."
                ),
                io.Boolean.Input(
                    "keep_depth", default=False, tooltip="Keep the depth as it is and make a picture for it (d2i)."
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip=(
                        "Joint latent. Noise masks of the inputs stay with their streams; a connected stream without"
                        " one follows the other's."
                    ),
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        rgb: Latent | None = None,
        depth: Latent | None = None,
        keep_rgb: bool = False,
        keep_depth: bool = False,
    ) -> io.NodeOutput:
        for name, given, kept in (("rgb", rgb, keep_rgb), ("depth", depth, keep_depth)):
            if kept and given is None:
                raise ValueError(f"{MERGE}: keep_{name} is on, but nothing is connected to {name}.")
        if keep_rgb and keep_depth:
            raise ValueError(f"{MERGE}: keep_rgb and keep_depth are both on, which leaves nothing to make.")
        picture = None if rgb is None else _picture_stream(rgb)
        record = {} if depth is None else depth_record(depth)
        stream = None if depth is None else depth_stream(MERGE, depth)
        if picture is None and stream is None:
            raise ValueError(f"{MERGE}: connect rgb, depth or both; for none of them there is MF Empty Latent.")
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
            if source is not None and "batch_index" in source:
                latent["batch_index"] = source["batch_index"]
        masks = [
            _mask(picture, rgb, depth, keep_rgb),
            _mask(stream, depth, rgb, keep_depth),
        ]
        if any(mask is not None for mask in masks):
            filled = zip(masks, (picture, stream), strict=True)
            latent["noise_mask"] = NestedTensor(
                [torch.ones_like(part[:, :1]) if mask is None else mask for mask, part in filled]
            )
        return io.NodeOutput(latent)


def _picture_stream(latent: Latent) -> Tensor:
    samples = split(MERGE, latent)[0] if latent["samples"].is_nested else latent["samples"]
    if samples.ndim != 4 or samples.shape[1] != RGB_CHANNELS:
        raise ValueError(
            f"{MERGE}: the latent at rgb has shape {tuple(samples.shape)}, this model's pictures have {RGB_CHANNELS}"
            " channels; encode the picture with the VAE of Load MF Model or the FLUX.2 VAE."
        )
    return samples


def _regrid(stream: Tensor, record: Latent, rows: int, columns: int) -> tuple[Tensor, Latent]:
    """A depth stream (B, 256, h, w) on another grid, resized as the depth maps that it holds."""
    maps, valid = decode_stream(stream, record)
    placement = place(MERGE, (maps.shape[1], maps.shape[2]), columns * PATCH_SIZE, rows * PATCH_SIZE, STRETCH)
    maps, valid = fit_depth(maps, valid, placement)
    kept: Latent = {"depth_valid": valid}
    if "depth_scale" in record:
        kept["depth_scale"] = record["depth_scale"].to(maps.device) * mean_depth(maps, valid).float()
    return encode_stream(maps, valid), kept


def _match_batches(rgb: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    batch = max(rgb.shape[0], depth.shape[0])
    if {rgb.shape[0], depth.shape[0]} - {1, batch}:
        raise ValueError(
            f"{MERGE}: there are {rgb.shape[0]} pictures for {depth.shape[0]} depth maps; give one, or as many of both."
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
