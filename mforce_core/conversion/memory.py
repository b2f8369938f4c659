"""Bytes that a transformer's weights take, from its sizes alone."""

import torch

from ..model.config import Architecture
from ..model.transformer import ModalityForcingTransformer
from .convert import Precision, slots_of

#: Parts of the transformer and the beginnings of their tensors' names; what fits none is an embedding.
PARTS = {
    "double blocks": ("double_blocks.",),
    "single blocks": ("single_blocks.",),
    "depth decoder": ("depth_decoder_blocks.",),
    "modulations": ("double_stream_modulation", "single_stream_modulation", "depth_decoder_modulation"),
    "RGB output": ("final_layer.",),
    "depth head": ("depth_final_layer.",),
}
EMBEDDINGS = "embeddings"


def count_parameters(architecture: Architecture) -> dict[str, int]:
    """Parameters of every part."""
    counts = dict.fromkeys((*PARTS, EMBEDDINGS), 0)
    for name, parameter in _model(architecture).named_parameters():
        counts[_part(name)] += parameter.numel()
    return counts


def weight_bytes(architecture: Architecture, precision: Precision) -> dict[str, int]:
    """Bytes of every part when a file of this precision has been loaded; the depth head is float32 then."""
    sizes = dict.fromkeys((*PARTS, EMBEDDINGS), 0)
    for name, shape in _shapes(architecture).items():
        slots = slots_of(name, tuple(shape), torch.float32, precision)
        sizes[_part(name)] += sum(slot.bytes for slot in slots.values())
    return sizes


def largest_layer(architecture: Architecture, precision: Precision) -> int:
    """Bytes of the largest single tensor: what is on its way to the device when weights are streamed."""
    shapes = _shapes(architecture).items()
    return max(slots_of(name, tuple(shape), torch.float32, precision)[name].bytes for name, shape in shapes)


def _part(name: str) -> str:
    return next((part for part, starts in PARTS.items() if name.startswith(starts)), EMBEDDINGS)


def _model(architecture: Architecture) -> ModalityForcingTransformer:
    with torch.device("meta"):
        return ModalityForcingTransformer(architecture)


def _shapes(architecture: Architecture) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in _model(architecture).state_dict().items()}
