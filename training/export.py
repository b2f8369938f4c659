"""From a run's averaged weights to files: a model folder, and the LoRA beside it."""

from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..mforce_core.model.transformer import ModalityForcingTransformer
from ..mforce_core.release import PATCH_SIZE
from ..mforce_core.weights.checkpoint import save_model
from .config import TrainConfig
from .lora import merge_lora, save_lora, split_lora
from .optimizer import MovingAverage
from .processes import Processes

#: In the run's folder.
MODEL, LORA = "model", "lora.safetensors"


def export(
    config: TrainConfig,
    model: ModalityForcingTransformer,
    average: MovingAverage,
    grid: tuple[int, int],
    processes: Processes,
) -> Path:
    """Write ``model/``, which :func:`..mforce_core.load_model` opens; all processes take part, the first one writes.

    ``grid`` (h, w) tokens of the pictures that it was trained on.

    With LoRA also ``lora.safetensors``; ``model/`` has it merged, unless ``lora.merge`` is off.
    """
    state = {name: _whole(average.tensors.get(name, tensor)) for name, tensor in model.state_dict().items()}
    out = config.out / MODEL
    if processes.first:
        weights, pairs = split_lora(state)
        if pairs:
            save_lora(pairs, config.lora, config.out / LORA)
            weights = merge_lora(weights, pairs, config.lora) if config.lora.merge else weights
        with torch.device("meta"):
            whole = ModalityForcingTransformer(model.config, schedule=model.schedule, dtype=torch.bfloat16)
        whole.load_state_dict(weights, assign=True)
        height, width = (side * PATCH_SIZE for side in grid)
        save_model(whole, out, dtype=torch.bfloat16, image_size=(width, height))
    processes.wait()
    return out


def _whole(tensor: Tensor) -> Tensor:
    """On the CPU; gathered from all processes where it is sharded."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()
