"""Starting weights: a text-to-image transformer from scratch, and a Modality Forcing one from it."""

import math
import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.functional import linear

from ..mforce_core.model.config import Architecture, ConfigError
from ..mforce_core.model.transformer import ModalityForcingTransformer

#: Starts of the depth stream's tensors that no image tensor becomes with ``depth_start = "paper"``.
_NEW_IN_PAPER = ("time_in_depth.", "depth_decoder_")

#: Tensors of the image stream in the double blocks, their shared modulation included.
_IMAGE_IN_DOUBLE_BLOCKS = re.compile(r"double_blocks\.\d+\.img_|double_stream_modulation_img\.")


class _MasterProduct(torch.autograd.Function):
    """``x W^T`` in x's dtype that keeps W as it is stored for the backward pass and casts it there again.

    Autograd alone would keep every weight's copy in the compute dtype from the forward to the backward pass.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, input: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(input, weight)
        return linear(input, weight.to(input))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        input, weight = ctx.saved_tensors
        wants_input, wants_weight = ctx.needs_input_grad
        to_input = gradient @ weight.to(gradient) if wants_input else None
        to_weight = gradient.flatten(0, -2).T @ input.flatten(0, -2) if wants_weight else None
        return to_input, None if to_weight is None else to_weight.to(weight)


class MasterWeightLinear(nn.Linear):
    """Keeps its weight where and how it is stored, and multiplies in the activations' dtype on their device."""

    def forward(self, input: Tensor) -> Tensor:
        if self.weight.dtype == input.dtype:
            return linear(input, self.weight.to(input))
        return _MasterProduct.apply(input, self.weight)


class TrainingOperations:
    """The transformer's ``operations`` for training."""

    Linear = MasterWeightLinear


def build(
    architecture: Architecture, precision: torch.dtype, stored: torch.dtype = torch.float32
) -> ModalityForcingTransformer:
    """A transformer on the meta device with parameters in ``stored`` that computes in ``precision``."""
    return ModalityForcingTransformer(
        architecture, operations=TrainingOperations, device="meta", dtype=stored, compute_dtype=precision
    )


def freeze(model: ModalityForcingTransformer, trainable: str, *, adapters_alone: bool = False) -> None:
    """Leave gradients to what is trained: everything, all but the image weights of the double blocks (``paper``), or
    the depth stream and the adapters, or those alone."""
    for name, parameter in model.named_parameters():
        of_depth = "depth" in name or name.startswith("cross_alpha")
        new = ".lora_" in name or (of_depth and not adapters_alone)
        open_in_paper = trainable == "paper" and not _IMAGE_IN_DOUBLE_BLOCKS.match(name)
        parameter.requires_grad_(trainable == "all" or new or open_in_paper)


@torch.no_grad()
def fill(model: ModalityForcingTransformer, base: Mapping[str, Tensor], depth_start: str, seed: int) -> None:
    """Give every parameter its starting value, whole or, where the model is sharded, this process's part of it.

    Raises:
        ConfigError: the base holds a value that is not finite.
    """
    for marker in model.buffers():
        marker.fill_(1)
    decoder_blocks = model.config.depth_decoder_num_layers
    for name, parameter in model.named_parameters():
        value = starting_value(name, parameter.shape, base, decoder_blocks, depth_start, seed)
        if not value.isfinite().all():
            raise ConfigError(f"base: {name} holds values that are not finite: the file is damaged")
        if isinstance(parameter, DTensor):
            # Every process has the whole value, so none has to send it.
            part = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
            parameter.to_local().copy_(part.to_local())
        else:
            parameter.copy_(value)


def starting_value(
    name: str, shape: torch.Size, base: Mapping[str, Tensor], decoder_blocks: int, depth_start: str, seed: int
) -> Tensor:
    """A tensor of the base moves in 1:1; the depth stream may copy its twins in the image stream; the rest is new.

    New are ``depth_in``, the depth head, the cross-stream time MLPs, whose gates ``cross_alpha`` are zero. With
    ``depth_start = "paper"`` (section 3.2) also the time embedder of depth and its decoder; with ``"gated"`` the depth
    stream's modulations, which start at zero, so that its blocks copy the image stream's behind closed gates; with
    ``"fresh"`` all of the depth stream.
    """
    twin = name if name in base else _twin(name, base, decoder_blocks)
    if name not in base and (
        depth_start == "fresh"
        or (depth_start == "gated" and "modulation" in name)
        or (depth_start == "paper" and name.startswith(_NEW_IN_PAPER))
    ):
        twin = None
    return fresh_value(name, shape, seed) if twin is None else base[twin].float()


def fresh_value(name: str, shape: torch.Size, seed: int) -> Tensor:
    """Xavier-uniform matrices; zero modulations and output layers, so that at the start every block is the identity
    and the prediction zero (adaLN-Zero, Peebles & Xie, arXiv 2212.09748). LoRA pairs start as a zero update."""
    if name.endswith("_norm.scale"):
        return torch.ones(shape)
    if len(shape) < 2 or "modulation" in name.lower() or "final_layer.linear" in name or ".lora_B." in name:
        return torch.zeros(shape)
    # By name, so that the value depends neither on the order of the parameters nor on which process asks.
    state = np.random.SeedSequence((seed, zlib.crc32(name.encode()))).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]) >> 1)
    bound = math.sqrt(6 / sum(shape)) if ".lora_A." not in name else 1 / math.sqrt(shape[1])
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _twin(name: str, base: Mapping[str, Tensor], decoder_blocks: int) -> str | None:
    """The base's tensor that one of the depth stream can start from; decoder blocks take the last single blocks."""
    twin = name
    if "depth_attn" in name or "depth_mlp" in name:
        twin = name.replace("depth_attn", "img_attn").replace("depth_mlp", "img_mlp")
    elif name.startswith("double_stream_modulation_depth"):
        twin = name.replace("_depth", "_img")
    elif name.startswith(("single_stream_modulation_depth", "time_in_depth.")):
        twin = name.replace("_depth", "")
    elif name.startswith("depth_decoder_blocks."):
        _, index, rest = name.split(".", 2)
        singles = len({key.split(".")[1] for key in base if key.startswith("single_blocks.")})
        twin = f"single_blocks.{singles - decoder_blocks + int(index)}.{rest}"
    return twin if twin in base else None
