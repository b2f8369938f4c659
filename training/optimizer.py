"""Optimizers, the learning rate, and the moving average of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from ..mforce_core.model.config import ConfigError
from .config import OptimizerConfig
from .sharded_muon import ShardedMuon


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) orthogonalises updates of the blocks' matrices; everything else takes AdamW."""
    blocks: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (blocks if by_muon(name, parameter, config) else rest).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            rest, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay, foreach=True
        )
    ]
    if blocks:
        muon = getattr(torch.optim, "Muon", None)
        if muon is None:
            raise ConfigError(f"optimizer.name = muon needs torch 2.9 or newer, this is {torch.__version__}; use adamw")
        settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        if isinstance(blocks[0], DTensor):
            optimizers.append(ShardedMuon(blocks, **settings))
        else:
            # With RMS matching the learning rate means the same as AdamW's.
            optimizers.append(muon(blocks, **settings, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def by_muon(name: str, parameter: nn.Parameter, config: OptimizerConfig) -> bool:
    """Whether Muon has this parameter."""
    return config.name == "muon" and "blocks." in name and parameter.ndim == 2


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Warm-up, constant, linear cool-down to zero over the last ``cooldown_steps``."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cool = min(1.0, (steps - step) / max(1, config.cooldown_steps))
    return config.learning_rate * min(warm, cool)


class MovingAverage:
    """Exponential moving average of the trained weights, sharded as they are.

    Attributes:
        tensors: the averages by name; for a sharded model DTensors of the parameters' placement.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        self.tensors = {name: p.clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After ``step`` steps; early on the average forgets faster, so that the start does not linger."""
        decay = min(self.decay, step / (step + 10))
        torch._foreach_lerp_(_local(self.tensors), _local(self.parameters), 1 - decay)

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
