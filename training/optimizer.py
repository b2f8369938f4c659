"""Optimizers, the learning rate, and the moving average of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .config import OptimizerConfig
from .muon import Muon


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """AdamW for everything that is trained or, with ``muon``, for all but the blocks' matrices."""
    blocks: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (blocks if by_muon(name, parameter, config) else rest).append(parameter)
    rate, decay = config.learning_rate, config.weight_decay
    adamw = torch.optim.AdamW(rest, lr=rate, weight_decay=decay, betas=(0.9, 0.95), foreach=True)
    return [adamw, Muon(blocks, lr=rate, weight_decay=decay)] if blocks else [adamw]


def by_muon(name: str, parameter: nn.Parameter, config: OptimizerConfig) -> bool:
    """Whether Muon has this parameter."""
    return config.name == "muon" and "blocks." in name and parameter.ndim == 2


def ramps(config: OptimizerConfig, steps: int) -> tuple[int, int]:
    """Steps of warm-up and cool-down that a run has: as configured, or shortened in proportion until they fit it."""
    wanted = config.warmup_steps + config.cooldown_steps
    share = min(1.0, steps / max(1, wanted))
    return int(config.warmup_steps * share), int(config.cooldown_steps * share)


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Warm-up, constant, linear cool-down to zero; see :func:`ramps`."""
    warmup, cooldown = ramps(config, steps)
    warm = min(1.0, (step + 1) / max(1, warmup))
    cool = min(1.0, (steps - step) / max(1, cooldown))
    return config.learning_rate * min(warm, cool)


class MovingAverage:
    """Exponential moving average of the trained weights, sharded as they are.

    Not torch's AveragedModel, which copies modules that FSDP does not let be copied, and makes the host wait for the
    device at every update.

    Attributes:
        tensors: the averages by name; for a sharded model DTensors of the parameters' placement.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        self.tensors = {name: p.clone() for name, p in self.parameters.items()}

    def update(self, step: int) -> None:
        """After ``step`` steps; early on the average forgets faster, so that the start does not linger."""
        decay = min(self.decay, step / (step + 10))
        get_ema_multi_avg_fn(decay)(_local(self.tensors), _local(self.parameters), step)

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """The model has the averaged weights for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, parameter in zip(_local(self.tensors), _local(self.parameters), strict=True):
            kept = average.clone()
            average.copy_(parameter)
            parameter.copy_(kept)
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # what it gathered for the last forward pass is of the other weights


def _local(tensors: dict[str, Tensor]) -> list[Tensor]:
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors.values()]
