"""ComfyUI's LATENT dictionaries that hold an RGB and a depth stream, and single depth streams.

``samples`` is a nested tensor of RGB (B, 128, h, w) and depth (B, 256, h, w) on one grid of 16-pixel cells.
``noise_mask`` is nested likewise, each part (B, 1, any height, any width): 0 keeps, 1 makes anew, and a stream whose
mask is 0 everywhere is frozen. What else is known about the depth follows the latent through samplers to the decoder:

- ``depth_valid`` (B, 16 h, 16 w) bool: pixels whose depth means something;
- ``depth_scale`` (B,): the unit of depth that the stream's own, relative, depth was divided by;
- ``placement``: how the input picture was cropped, scaled and padded to this size
  (``mforce_core.placement.Placement``).

Relies on: ``comfy.nested_tensor.NestedTensor``, which core's samplers take as samples, noise and noise mask, and its
``_copy``; and on that nodes of core make a LATENT out of another by ``copy()`` and an assignment.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

import comfy.model_management
import torch
from comfy.nested_tensor import NestedTensor
from torch import Tensor

from ...mforce_core.release import DEPTH_CHANNELS, PATCH_SIZE

#: Where the latents' nodes are in the menu.
CATEGORY = "model/latent/modality forcing"

#: Which repeat of its picture each picture of a batch is, by a node of this pack; core's own entry is ``batch_index``.
REPEATS = "repeat_index"

#: What a LATENT may say about its depth, and the part of it that has one entry per sample.
DEPTH_RECORD = frozenset({"depth_valid", "depth_scale", "placement"})
PER_SAMPLE = DEPTH_RECORD - {"placement"}

Latent = dict[str, Any]


class JointSamples(NestedTensor):
    """The two streams of a joint latent, which tell a node that takes them for one tensor what to do instead."""

    _SENTENCE = (
        "A joint latent holds two streams, a picture and its depth, and this node works on one. For batches use MF"
        " Latent From Batch and MF Repeat Latent; for all else take the streams apart with MF Split Latent and join"
        " them again with MF Merge Latent."
    )

    def _copy(self) -> JointSamples:
        return JointSamples(self.tensors)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(self._SENTENCE)

    def __len__(self) -> int:
        raise TypeError(self._SENTENCE)

    def __bool__(self) -> bool:
        return True

    @classmethod
    def __torch_function__(cls, *_args: Any, **_kwargs: Any) -> Any:
        raise TypeError(cls._SENTENCE)


class JointLatent(dict[str, Any]):
    """A LATENT that stays joint in the hands of core's samplers, which copy it and put plain nested tensors in."""

    def __new__(cls, *args: Any, **kwargs: Any) -> JointLatent:
        latent = super().__new__(cls, *args, **kwargs)
        _ALIVE[id(latent)] = latent
        return latent

    def __setitem__(self, name: str, value: Any) -> None:
        if name == "samples" and type(value) is NestedTensor:
            value = JointSamples(value.unbind())
        super().__setitem__(name, value)

    def copy(self) -> JointLatent:
        return JointLatent(self)

    def __or__(self, other: Latent) -> JointLatent:  # type: ignore[override]
        return JointLatent({**self, **other})

    def __ror__(self, other: Latent) -> JointLatent:  # type: ignore[override]
        return JointLatent({**other, **self})


#: Core's sampler nodes hand on the streams of a LATENT without what it says about them, but hold it while they sample.
_ALIVE: WeakValueDictionary[int, JointLatent] = WeakValueDictionary()


def record_of_stream(depth: Tensor) -> Latent:
    """What the joint LATENT that holds exactly this depth stream says about its depth; {} where there is none.

    Of several the last counts: samplers make a copy of the LATENT that they sample before they sample it.
    """
    for latent in reversed(list(_ALIVE.values())):
        samples = latent.get("samples")
        if samples is not None and samples.is_nested:
            held = samples.unbind()[-1]
            if held.shape == depth.shape and torch.equal(held.to(depth), depth):
                return depth_record(latent)
    return {}


def empty_stream(batch: int, channels: int, height: int, width: int) -> Tensor:
    """(batch, channels, height, width) zeros, which samplers take as "start from noise"; sides in cells."""
    return torch.zeros(batch, channels, height, width, device=comfy.model_management.intermediate_device())


def check_size(width: int, height: int) -> None:
    """Raise ValueError unless both sides, in pixels, are positive multiples of a cell."""
    for name, size in (("width", width), ("height", height)):
        if size < PATCH_SIZE or size % PATCH_SIZE:
            below = max(PATCH_SIZE, size // PATCH_SIZE * PATCH_SIZE)
            near = f"use {below} or {below + PATCH_SIZE}"
            raise ValueError(f"{name} {size} is not a multiple of {PATCH_SIZE}; {near}.")


def joint(rgb: Tensor, depth: Tensor, *, freeze_rgb: bool = False, freeze_depth: bool = False) -> Latent:
    """LATENT of two streams (B, C, h, w); a frozen stream keeps its value through sampling."""
    latent = JointLatent(samples=JointSamples([rgb, depth]))
    if freeze_rgb or freeze_depth:
        latent["noise_mask"] = freeze_mask(rgb, depth, freeze_rgb=freeze_rgb, freeze_depth=freeze_depth)
    return latent


def depth_record(latent: Latent) -> Latent:
    """What a LATENT says about its depth beside the stream itself."""
    return {name: latent[name] for name in DEPTH_RECORD & latent.keys()}


def freeze_mask(rgb: Tensor, depth: Tensor, *, freeze_rgb: bool, freeze_depth: bool) -> NestedTensor:
    """Nested noise mask (B, 1, h, w) each: 0 keeps, 1 denoises."""
    frozen = ((rgb, freeze_rgb), (depth, freeze_depth))
    return NestedTensor([torch.full_like(stream[:, :1], 0.0 if keep else 1.0) for stream, keep in frozen])


def split(latent: Latent) -> tuple[Tensor, Tensor]:
    """The (rgb, depth) streams of a joint LATENT.

    Raises:
        ValueError: it is another kind of latent.
    """
    samples = latent["samples"]
    streams = samples.unbind() if samples.is_nested else [samples]
    if len(streams) != 2 or any(stream.ndim != 4 for stream in streams):
        raise ValueError(
            "the latent is not a joint RGB and depth latent; connect MF Empty Latent, MF Image to"
            " Depth Latent, MF Depth to Image Latent or what a sampler made of them."
        )
    return streams[0], streams[1]


def single_streams(latent: Latent, rgb: Tensor, depth: Tensor) -> tuple[Latent, Latent]:
    """Two plain LATENTs that keep what belongs to each from the joint one they come from."""
    shared = {key: latent[key] for key in ("batch_index", REPEATS) if key in latent}
    return {"samples": rgb, **shared}, {"samples": depth, **shared, **depth_record(latent)}


def made_depth(latent: Latent) -> Tensor:
    """The depth stream (B, 256, h, w) of a LATENT whose depth was made or given.

    Raises:
        ValueError: it is another kind of latent, or one that is still to be sampled.
    """
    stream = depth_stream(latent)
    if not stream.flatten(1).any(1).all():
        raise ValueError(
            "the latent holds no depth yet; connect Encode Depth, or the depth that MF Sampler made of this latent."
        )
    return stream


def depth_stream(latent: Latent) -> Tensor:
    """The depth stream (B, 256, h, w) of a joint LATENT or of one that is a depth stream by itself.

    Raises:
        ValueError: it is another kind of latent.
    """
    samples = latent["samples"]
    if samples.is_nested:
        samples = split(latent)[1]
    if samples.ndim != 4 or samples.shape[1] != DEPTH_CHANNELS:
        raise ValueError(
            f"the latent has shape {tuple(samples.shape)} and is not a depth stream, which has"
            f" {DEPTH_CHANNELS} channels; connect the depth output of MF Sampler, MF Split Latent or Encode"
            " Depth."
        )
    return samples
