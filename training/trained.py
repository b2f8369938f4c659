"""A model that is trained: the student, or the critic beside it; and its steps."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..mforce_core.model.transformer import ModalityForcingTransformer
from .config import OptimizerConfig, TrainConfig
from .initialize import build, fill, freeze
from .lora import add_lora
from .optimizer import build_optimizers, learning_rate
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


class Trained:
    """A model with its optimizers, for a run of so many steps."""

    def __init__(self, model: nn.Module, config: OptimizerConfig, steps: int) -> None:
        self.model, self.config, self.steps = model, config, steps
        self.optimizers = build_optimizers(model, config)

    def step(self, number: int) -> Tensor:
        """Take the step with this index by what backward passes have left; returns the norm of the whole gradient."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.gradient_clip, foreach=True)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(number, self.steps, self.config)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm


def faster(config: OptimizerConfig, rate: float) -> OptimizerConfig:
    """The same at ``rate`` times the learning rate."""
    return config.model_copy(update={"learning_rate": config.learning_rate * rate})
