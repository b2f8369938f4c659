"""What a run will take, from shapes alone: parameters, memory of a GPU, operations and time of a step. An estimate."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..mforce_core.model.transformer import ModalityForcingTransformer
from ..mforce_core.release import PATCH_SIZE
from .checks import check_processes
from .config import TrainConfig
from .data.resident import resident_bytes
from .optimizer import by_muon
from .processes import blocks_of
from .teacher import needs_weights
from .trained import meta_model

#: Of one GPU: dense bfloat16 of an H100, and the share of it that large transformers usually reach in training.
PEAK_TFLOPS, UTILIZATION = 989.0, 0.4


@dataclass(frozen=True)
class Plan:
    """One step on ``processes`` GPUs: bytes are of one GPU, ``tokens`` and ``flops`` of the global batch.

    ``samples`` are those of ``data.on_device``; ``activations`` are kept from forward to backward pass,
    ``checkpointed`` those where blocks are computed again.
    """

    processes: int
    tokens: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    teacher: int
    samples: int
    activations: int
    checkpointed: int
    flops: float

    @property
    def state(self) -> int:
        """Everything but activations."""
        return self.weights + self.gradients + self.optimizer + self.average + self.teacher + self.samples

    @property
    def seconds(self) -> float:
        return self.flops / (self.processes * PEAK_TFLOPS * 1e12 * UTILIZATION)


class Costs(NamedTuple):
    """Of one sample: bytes that autograd keeps, all and block by block, those of a block's input, and operations.

    ``resident``: bytes of all samples, where every GPU holds them.
    """

    kept: int
    by_block: list[int]
    block_input: int
    forward_flops: float
    backward_flops: float
    teacher_flops: float
    resident: int


def plan(config: TrainConfig, costs: Costs, processes: int) -> Plan:
    """Estimate a run on ``processes`` GPUs.

    Counted: float32 weights, averages and moments, shared by the processes; float32 gradients, shared too unless they
    are added up once per step after several micro-batches; weights in the compute dtype, of two blocks where they are
    sharded and otherwise of one layer at a time; the teacher's own weights where it has some; what autograd keeps of
    one micro-batch; samples of ``data.on_device`` that are encoded already, as they are stored; all but averages and
    samples once more for a critic. Not counted: fragmentation, buffers of collectives, encoders.

    Raises:
        ConfigError: the batch or the optimizer does not divide.
    """
    check_processes(config.batch_size, processes)
    model, models = meta_model(config), 1 + config.has_critic
    width = model.compute_dtype.itemsize
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    learned, total = sum(p.numel() for p in trained.values()), sum(sizes.values())
    moments = sum(p.numel() * (1 if by_muon(n, p, config.optimizer) else 2) for n, p in trained.items())
    largest = max(sum(p.numel() for p in block.parameters()) for block in blocks_of(model))
    layer = 0 if width == 4 else max(sizes.values())
    computing = width * (layer if processes == 1 else 2 * largest)
    holds_teacher = needs_weights(config) and config.scale.teacher == "device"
    whole = config.stage == "distill"
    teacher = width * sum(size for name, size in sizes.items() if whole or "depth" not in name) if holds_teacher else 0
    share = config.batch_size // processes
    rows = min(config.scale.micro_batch_size or share, share)
    whole_gradients = rows < share and config.scale.reduce_gradients == "step"
    grid = tokens_of(config)
    again = costs.forward_flops if config.scale.checkpoint_activations else 0
    outside = costs.kept - sum(costs.by_block)
    return Plan(
        processes=processes,
        tokens=config.batch_size * (config.data.text_tokens + (1 + config.sizes().has_depth) * grid[0] * grid[1]),
        weights=models * 4 * total // processes + computing,
        gradients=models * 4 * learned // (1 if whole_gradients else processes),
        optimizer=models * 4 * moments // processes,
        average=4 * learned // processes,
        teacher=teacher // processes,
        samples=costs.resident,
        activations=rows * models * costs.kept,
        checkpointed=rows * (models * (outside + len(costs.by_block) * costs.block_input) + max(costs.by_block)),
        flops=config.batch_size * (models * (costs.forward_flops + costs.backward_flops + again) + costs.teacher_flops),
    )


def tokens_of(config: TrainConfig) -> tuple[int, int]:
    """The grid of a picture of ``data.size``."""
    return config.data.size[0] // PATCH_SIZE, config.data.size[1] // PATCH_SIZE


def count_costs(config: TrainConfig) -> Costs:
    """Run one sample through the model on the meta device.

    Attention is counted as the fused one, which keeps no L x L matrix; parameters are no activations.
    """
    model = meta_model(config, stored=getattr(torch, config.precision))
    sizes, grid = config.sizes(), tokens_of(config)
    count = grid[0] * grid[1]
    with torch.device("meta"):
        rgb, text, t = (
            torch.empty(1, count, sizes.in_channels),
            torch.empty(1, config.data.text_tokens, sizes.context_in_dim),
            torch.empty(1),
        )
        depth = torch.empty(1, count, sizes.depth_channels) if sizes.has_depth else None
        scale = torch.empty(1) if sizes.use_guidance_embed else None
    length = config.data.text_tokens + (1 + sizes.has_depth) * count
    kept = _KeptBytes(model, {length, count})
    with FlopCounterMode(display=False) as forward, kept:
        velocity, depth_x0 = model(rgb, depth, text, t, None if depth is None else t, grid, scale)
    with FlopCounterMode(display=False) as backward:
        (velocity.float().sum() + (0 if depth_x0 is None else depth_x0.sum())).backward()
    teacher = 0.0
    if config.stage == "distill":
        jump, passes = config.distillation, 0
        look = 1 + jump.guided(embeds=sizes.use_guidance_embed)
        if jump.trajectory_weight:
            passes += jump.teacher_steps * look + (jump.teacher_share < 1)
        if jump.on_policy:
            passes += jump.steps - 1
        if config.has_critic:
            passes += look
        teacher = float(forward.get_total_flops()) * passes
    elif config.distils:
        with FlopCounterMode(display=False) as alone, torch.no_grad():
            model(rgb, None, text, t, None, grid)
        teacher = float(alone.get_total_flops())
    return Costs(
        kept=sum(kept.bytes.values()),
        by_block=[kept.bytes.get(block, 0) for block in blocks_of(model)],
        block_input=length * sizes.hidden_size * model.compute_dtype.itemsize,
        forward_flops=float(forward.get_total_flops()),
        backward_flops=float(backward.get_total_flops()),
        teacher_flops=teacher,
        resident=_resident(config),
    )


def _resident(config: TrainConfig) -> int:
    """Bytes of the samples that every GPU holds."""
    if not config.data.on_device:
        return 0
    features = torch.float32.itemsize * config.data.text_tokens * config.sizes().context_in_dim
    return resident_bytes(list(config.data.parts()), depth=config.has_depth, features=features)


class _KeptBytes:
    """Bytes that autograd saves for the backward pass, by the block that runs (None: outside all blocks)."""

    def __init__(self, model: ModalityForcingTransformer, lengths: set[int]) -> None:
        self._lengths = lengths
        self.bytes: dict[nn.Module | None, int] = {}
        self._block: nn.Module | None = None
        self._seen = {p.untyped_storage()._cdata for p in model.parameters()}
        self._alive: list[Tensor] = []  # a freed storage's number may come again
        for block in blocks_of(model):
            block.register_forward_pre_hook(self._enter)
            block.register_forward_hook(self._leave)
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def __enter__(self) -> None:
        self._hooks.__enter__()

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def _enter(self, block: nn.Module, inputs: object) -> None:
        self._block = block

    def _leave(self, block: nn.Module, inputs: object, output: object) -> None:
        self._block = None

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        is_attention_matrix = tensor.ndim >= 3 and tensor.shape[-1] == tensor.shape[-2] in self._lengths
        if storage._cdata not in self._seen and not is_attention_matrix:
            self._seen.add(storage._cdata)
            self._alive.append(tensor)
            self.bytes[self._block] = self.bytes.get(self._block, 0) + storage.nbytes()
        return tensor
