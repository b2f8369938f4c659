"""The smallest transformer with a block of every kind, and random weights for transformers of any size."""

from dataclasses import replace

import torch

from mforce.mforce_core.model.config import Architecture
from mforce.mforce_core.model.transformer import ModalityForcingTransformer

TINY = Architecture(
    in_channels=8,
    depth_channels=16,
    context_in_dim=12,
    hidden_size=32,
    num_heads=2,
    depth_double=1,
    depth_single=1,
    depth_decoder_num_layers=1,
    axes_dim=(4, 4, 4, 4),
)
#: Wide enough for differences of several ranks.
WIDER = replace(TINY, in_channels=32, depth_channels=256, context_in_dim=32, hidden_size=96, axes_dim=(12, 12, 12, 12))


def random_model(sizes: Architecture, *, std: float) -> ModalityForcingTransformer:
    """Normal weights, gates and outputs included, which start at zero otherwise; the same at every call."""
    torch.manual_seed(0)
    model = ModalityForcingTransformer(sizes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model
