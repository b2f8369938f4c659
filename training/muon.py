"""Muon for matrices that are whole or sharded across processes; torch.optim.Muon orthogonalizes only whole ones."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

#: What torch.optim.Muon has.
_MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """The step of :class:`torch.optim.Muon` (Jordan et al., 2024), bit for bit, also on DTensors.

    Nesterov momentum; the learning rate means the same as AdamW's (``match_rms_adamw``). Weights and momentum stay
    sharded. An update is orthogonalized as a whole matrix: processes take the matrices in turns, as many at a time as
    there are processes, so that the work is shared.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step; every process calls it."""
        for group in self.param_groups:
            ready = [p for p in group["params"] if p.grad is not None]
            for parameter in (p for p in ready if not isinstance(p, DTensor)):
                _update(parameter, _orthogonalized(self._momentum(parameter)), group)
            # Neighbors of one size keep the processes equally busy.
            sharded = sorted((p for p in ready if isinstance(p, DTensor)), key=nn.Parameter.numel, reverse=True)
            count = dist.get_world_size() if sharded else 1
            for first in range(0, len(sharded), count):
                self._step_together(sharded[first : first + count], group)

    def _step_together(self, parameters: Sequence[DTensor], group: dict[str, Any]) -> None:
        """One matrix per process."""
        updates = [cast(DTensor, self._momentum(parameter)).full_tensor() for parameter in parameters]
        own = dist.get_rank()
        if own < len(updates):
            updates[own] = _orthogonalized(updates[own])
        for owner, (parameter, update) in enumerate(zip(parameters, updates, strict=True)):
            dist.broadcast(update, owner)
            part = distribute_tensor(update, parameter.device_mesh, parameter.placements, src_data_rank=None)
            _update(parameter, part, group)

    def _momentum(self, parameter: Tensor) -> Tensor:
        """Add the gradient to the momentum; what Nesterov's rule looks ahead to."""
        gradient = cast(Tensor, parameter.grad)
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp(average, _MOMENTUM)


def _update(parameter: Tensor, update: Tensor, group: dict[str, Any]) -> None:
    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


def _orthogonalized(update: Tensor) -> Tensor:
    """What torch.optim.Muon would subtract for this update at learning rate 1, without its momentum and decay."""
    carrier = nn.Parameter(torch.zeros_like(update))
    carrier.grad = update
    torch.optim.Muon(
        [carrier], lr=1.0, weight_decay=0, momentum=0, nesterov=False, adjust_lr_fn="match_rms_adamw"
    ).step()
    return -carrier.detach()
