"""Optimizers, the learning rate, and the moving average of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .config import OptimizerConfig
from .muon import Muon


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """AdamW for everything that is trained or, with ``muon``, for all but the blocks' matrices."""
    blocks: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (blocks if by_muon(name, parameter, config) else rest).append(parameter)
    settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, betas=(0.9, 0.95), foreach=True, **settings)]
    return [*optimizers, Muon(blocks, **settings)] if blocks else optimizers


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

    Attributes:
        tensors: the averages by name; for a sharded model DTensors of the parameters' placement.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        # A list of the parameters, since a sharded module cannot be copied.
        self._trained = nn.ParameterList(trained.values())
        self._average = AveragedModel(self._trained, multi_avg_fn=self._forget)
        self._average.n_averaged.fill_(1)  # the starting weights are the first that it has seen
        self.tensors = {n: p.detach() for n, p in zip(trained, self._average.module.parameters(), strict=True)}

    def update(self, step: int) -> None:
        """After ``step`` steps; early on the average forgets faster, so that the start does not linger."""
        self._decay_now = min(self.decay, step / (step + 10))
        self._average.update_parameters(self._trained)

    def _forget(self, averages: list[Tensor], weights: list[Tensor], count: Tensor) -> None:
        get_ema_multi_avg_fn(self._decay_now)(averages, weights, count)

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
        for average, parameter in zip(self.tensors.values(), self._trained, strict=True):
            ours, its = _local(average), _local(parameter.detach())
            kept = ours.clone()
            ours.copy_(its)
            its.copy_(kept)
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # what it gathered for the last forward pass is of the other weights


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
