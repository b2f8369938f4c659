"""Starting weights: a text-to-image transformer from scratch, and a Modality Forcing one from it."""

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.functional import linear

from ..mforce_core.model.config import Architecture
from ..mforce_core.model.transformer import ModalityForcingTransformer
from .config import RecipeConfig


class MasterWeightLinear(nn.Linear):
    """Keeps its weight where and how it is stored, and multiplies in the activations' dtype on their device."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight.to(input))


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


def freeze(model: ModalityForcingTransformer, trainable: str) -> None:
    """Leave gradients to what is trained: everything, or the depth stream and the adapters."""
    for name, parameter in model.named_parameters():
        new = "depth" in name or name.startswith("cross_alpha") or ".lora_" in name
        parameter.requires_grad_(trainable == "all" or new)


@torch.no_grad()
def fill(model: ModalityForcingTransformer, base: Mapping[str, Tensor], recipe: RecipeConfig, seed: int) -> None:
    """Give every parameter its starting value, whole or, where the model is sharded, this process's part of it."""
    decoder_blocks = model.config.depth_decoder_num_layers
    for name, parameter in model.named_parameters():
        value = starting_value(name, parameter.shape, base, decoder_blocks, recipe, seed)
        if isinstance(parameter, DTensor):
            # Every process has the whole value, so none has to send it.
            part = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
            parameter.to_local().copy_(part.to_local())
        else:
            parameter.copy_(value)


def starting_value(
    name: str, shape: torch.Size, base: Mapping[str, Tensor], decoder_blocks: int, recipe: RecipeConfig, seed: int
) -> Tensor:
    """A tensor of the base moves in 1:1; the depth stream may copy its twins in the image stream; the rest is new.

    New are ``depth_in``, the depth head, the cross-stream time MLPs, whose gates ``cross_alpha`` are zero; with
    ``depth_start = "gated"`` also the depth stream's modulations, which start at zero, so that its blocks copy the
    image stream's behind closed gates; with ``"fresh"`` all of the depth stream.
    """
    twin: str | None = name
    if name not in base:
        twin = None if recipe.depth_start == "fresh" else _twin(name, base, decoder_blocks)
        if twin is not None and recipe.depth_start == "gated" and "modulation" in name:
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
