"""A model that is trained: the student, or the critic beside it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..mforce_core.model.transformer import ModalityForcingTransformer
from .config import TrainConfig
from .initialize import build, fill, freeze
from .lora import add_lora
from .processes import Processes, checkpoint_activations, shard


def meta_model(config: TrainConfig, stored: torch.dtype = torch.float32) -> ModalityForcingTransformer:
    """The model that is trained, without memory."""
    model = build(config.sizes(), getattr(torch, config.precision), stored)
    distills = config.stage == "distill"
    if config.trainable == "lora":
        add_lora(model, config.lora, with_depth=distills)
    freeze(model, config.trainable, adapters_alone=distills and config.trainable == "lora")
    return model


def trained_model(config: TrainConfig, base: Mapping[str, Tensor], processes: Processes) -> ModalityForcingTransformer:
    """The same with its starting values, on the device or, where there are several processes, sharded over them."""
    model = meta_model(config)
    if config.scale.checkpoint_activations:
        checkpoint_activations(model)
    shard(model, processes)
    model.to_empty(device=processes.device)
    fill(model, base, config.recipe.depth_start, config.seed)
    return model
