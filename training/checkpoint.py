"""Training state in safetensors: weights, their moving average and the optimisers' moments."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

STATE_FILE = "state.safetensors"


def save_state(
    folder: Path,
    step: int,
    model: nn.Module,
    average: dict[str, Tensor],
    optimizers: list[torch.optim.Optimizer],
) -> None:
    """Write the state after ``step`` steps in place of the previous one."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
    for number, optimizer in enumerate(optimizers):
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{index}.{key}": torch.as_tensor(v) for key, v in moments.items()}
    partial = folder / (STATE_FILE + ".part")
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, partial, metadata={"step": json.dumps(step)})
    partial.replace(folder / STATE_FILE)


def load_state(
    folder: Path, model: nn.Module, average: dict[str, Tensor], optimizers: list[torch.optim.Optimizer]
) -> int:
    """Restore what :func:`save_state` wrote; returns the number of finished steps, 0 where nothing was saved."""
    path = folder / STATE_FILE
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as handle:
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        step = json.loads(handle.metadata()["step"])
    model.load_state_dict({name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")})
    for name, tensor in average.items():
        tensor.copy_(tensors[f"average.{name}"])
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"optimizer.{number}."):
                _, _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step
