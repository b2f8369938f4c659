"""Starting weights: a text-to-image transformer from scratch, and a Modality Forcing one from it."""

import torch
from torch import nn
from torch.nn.functional import linear

from ..mforce_core.config import Architecture
from ..mforce_core.transformer import ModalityForcingTransformer


class MasterWeightLinear(nn.Linear):
    """Keeps float32 weights for the optimiser and multiplies in the activations' dtype."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return linear(input, self.weight.to(input.dtype))


class TrainingOperations:
    """The transformer's ``operations`` for training."""

    Linear = MasterWeightLinear


def build(architecture: Architecture, precision: torch.dtype) -> ModalityForcingTransformer:
    """A transformer with float32 parameters that computes in ``precision``."""
    model = ModalityForcingTransformer(architecture, operations=TrainingOperations, dtype=torch.float32)
    model.compute_dtype = precision
    return model


@torch.no_grad()
def initialize(model: ModalityForcingTransformer, seed: int) -> None:
    """Xavier-uniform matrices; zero modulations and output layers, so that at the start every block is the identity
    and the prediction zero (adaLN-Zero, Peebles & Xie, arXiv 2212.09748)."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        if "modulation" in name.lower() or "final_layer.linear" in name:
            nn.init.zeros_(parameter)
        else:
            nn.init.xavier_uniform_(parameter, generator=generator)


@torch.no_grad()
def initialize_from_base(model: ModalityForcingTransformer, base: ModalityForcingTransformer, seed: int) -> None:
    """Every tensor of the base moves in 1:1; the depth stream starts from the image stream's weights.

    New are ``depth_in``, the depth head and the cross-stream time MLPs; ``cross_alpha`` is zero, so those do not act
    yet. Depth-decoder blocks start from the base's last single blocks behind a closed gate.
    """
    initialize(model, seed)
    source = base.state_dict()
    target = model.state_dict()
    decoder_blocks, single_blocks = model.config.depth_decoder_num_layers, model.config.depth_single
    for name, tensor in target.items():
        twin = name
        if "depth_attn" in name or "depth_mlp" in name:
            twin = name.replace("depth_attn", "img_attn").replace("depth_mlp", "img_mlp")
        elif name.startswith("double_stream_modulation_depth"):
            twin = name.replace("_depth", "_img")
        elif name.startswith(("single_stream_modulation_depth", "time_in_depth.")):
            twin = name.replace("_depth", "")
        elif name.startswith("depth_decoder_blocks."):
            _, index, rest = name.split(".", 2)
            twin = f"single_blocks.{single_blocks - decoder_blocks + int(index)}.{rest}"
        if twin in source:
            tensor.copy_(source[twin])
