"""One process or many: who they are, sums over them, and the model sharded across them (FSDP2)."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.utils.checkpoint import checkpoint

from ..mforce_core.model.transformer import ModalityForcingTransformer

_Tensors = TypeVar("_Tensors", bound=tuple)


@dataclass(frozen=True)
class Processes:
    """This process among those that share a run; ``device`` is its own."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This process's rows of a global batch."""
        rows = batch_size // self.count
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes; on a GPU the host does not wait for it."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


def join(device: str) -> Processes:
    """Join the run that torchrun started, or be a run of one process."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    own = torch.device(device)
    if own.type == "cuda" and own.index is None:
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(own)
    if count == 1:
        return Processes(0, 1, own)
    dist.init_process_group("cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo")
    return Processes(dist.get_rank(), count, own)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def to(values: _Tensors, device: torch.device) -> _Tensors:
    """Move the tensors of a named tuple to the device."""
    moved = (value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for value in values)
    return type(values)(*moved)


def blocks_of(model: ModalityForcingTransformer) -> list[nn.Module]:
    """Everything that repeats, in the order of the forward pass: the units of sharding and of recomputation."""
    blocks = [*model.double_blocks, *model.single_blocks]
    return [*blocks, *model.depth_decoder_blocks] if model.config.has_depth else blocks


def checkpoint_activations(model: ModalityForcingTransformer) -> None:
    """Keep a block's inputs alone and compute its inside again in the backward pass."""
    for block in blocks_of(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def shard(model: ModalityForcingTransformer, processes: Processes) -> None:
    """Split every parameter across the processes; a block is whole only while it runs, in the compute dtype.

    The depth head stays float32, as everywhere.
    """
    if processes.count == 1:
        return
    mesh = dist.init_device_mesh(processes.device.type, (processes.count,))
    policy = MixedPrecisionPolicy(
        param_dtype=model.compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    exact = MixedPrecisionPolicy(param_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    if model.config.has_depth:
        # Its two parts, since the model calls them one by one.
        for part in (model.depth_final_layer.adaLN_modulation, model.depth_final_layer.linear):
            fully_shard(part, mesh=mesh, mp_policy=exact)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    register_fsdp_forward_method(model, "modulations")  # the sampler calls it


def reduce_gradients(model: nn.Module, wanted: bool) -> None:
    """Whether the next backward pass adds up the gradients of all processes, or leaves them whole on each."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(wanted)


def compiled(model: ModalityForcingTransformer, wanted: bool, processes: Processes) -> Callable:
    """The model to call: as a whole where it is whole, block by block where it is sharded."""
    if not wanted:
        return model
    if processes.count == 1:
        return torch.compile(model)
    for block in blocks_of(model):
        block.forward = torch.compile(block.forward)
    return model
