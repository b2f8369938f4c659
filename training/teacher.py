"""The frozen model that a student looks up to: its text-to-image base, or the model that is distilled."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..mforce_core.model.config import Architecture
from ..mforce_core.model.transformer import ModalityForcingTransformer
from ..mforce_core.weights.header import read_header
from .config import TrainConfig
from .initialize import build, fill
from .lora import lora_off
from .losses import Denoiser
from .processes import Processes, compiled, shard


def make_teacher(
    config: TrainConfig,
    student: ModalityForcingTransformer,
    forward: Callable,
    base: Mapping[str, Tensor],
    processes: Processes,
) -> Denoiser | None:
    """None where nothing is distilled.

    A student whose image and text half is frozen is its own teacher when it runs without depth (not in stage distill,
    whose teacher has depth); with LoRA, when that is off. Otherwise the teacher needs weights of its own, in the
    compute dtype: on the device, sharded as the student, or in the base's mapped file (``scale.teacher = "host"``).
    """
    if not config.distils:
        return None
    if config.trainable == "depth" and config.stage == "mf":
        return forward
    if config.trainable == "lora":

        def without_lora(*inputs: object) -> tuple[Tensor, Tensor]:
            with lora_off(student):
                return forward(*inputs)

        return without_lora
    assert config.base is not None
    architecture = read_header(config.base).architecture
    if config.scale.teacher == "host":
        return compiled(_on_host(architecture, student.compute_dtype, base, processes), config.compile, processes)
    teacher = build(architecture, student.compute_dtype, stored=student.compute_dtype).requires_grad_(False)
    shard(teacher, processes)
    teacher.to_empty(device=processes.device)
    fill(teacher, base, config.recipe.depth_start, config.seed)
    return compiled(teacher, config.compile, processes)


def needs_weights(config: TrainConfig) -> bool:
    """Whether the teacher has weights of its own; see :func:`make_teacher`."""
    own = ("all", "paper", "depth") if config.stage == "distill" else ("all", "paper")
    return config.distils and config.trainable in own


def _on_host(
    architecture: Architecture, precision: torch.dtype, base: Mapping[str, Tensor], processes: Processes
) -> ModalityForcingTransformer:
    """Matrices stay where ``base`` has them, which all processes of a machine share; layers move them when they run."""
    teacher = build(architecture, precision, stored=precision).requires_grad_(False)
    weights = {
        name: base[name] if tensor.ndim > 1 else base[name].to(processes.device)
        for name, tensor in teacher.state_dict().items()
    }
    teacher.load_state_dict(weights, assign=True)
    return teacher.requires_grad_(False)
