"""What a run needs and does not have, said in one sentence before anything large is loaded."""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ..mforce_core.model.config import ConfigError
from ..mforce_core.weights.header import read_header
from .batches import Source
from .config import TrainConfig

#: A run's configuration in its folder.
SETTINGS = "config.json"

#: What makes another run of it; the rest may change between a run and its continuation.
_FIXED = ("stage", "seed", "batch_size", "base", "text_encoder", "architecture", "data", "distillation")


def check_config(config: TrainConfig, processes: int) -> None:
    """Raises ConfigError, a ValueError or an OSError where the batch, the data or the base do not fit."""
    check_processes(config.batch_size, processes)
    check_base(config)
    check_data(config)


def check_device(name: str) -> None:
    """Raises ConfigError where torch does not know the device or the machine lacks it."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device: {name} is no device: use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        found = f"finds {count} CUDA devices" if count else "finds no CUDA device"
        raise ConfigError(f"device is {name}, but PyTorch {found} here: set device = cpu or another one")


def check_processes(batch_size: int, count: int) -> None:
    """Raises ConfigError where this many processes cannot share the batch."""
    if batch_size % count:
        raise ConfigError(f"batch_size {batch_size} cannot be shared equally by {count} processes")


def check_data(config: TrainConfig) -> None:
    """Raises ConfigError where a folder of latents is missing or empty."""
    name = "data.mixture" if config.data.mixture else "data.latents"
    folders = [(name, folder) for folder in config.data.parts()]
    folders += [] if config.heldout is None else [("heldout.latents", config.heldout.latents)]
    for key, folder in folders:
        if next(folder.glob("latents-*.safetensors"), None) is None:
            raise ConfigError(f"{key}: {folder} holds no latents-*.safetensors: run mforce data encode first")


def check_base(config: TrainConfig) -> None:
    """Raises a ValueError where the base is missing, unreadable or of other sizes; reads its header alone."""
    if config.base is None:
        return
    if not config.base.exists():
        raise ConfigError(f"base: {config.base} does not exist: train it first or give another one")
    wanted, found = config.sizes().to_dict(), read_header(config.base).architecture.to_dict()
    has_depth = found["depth_channels"] > 0
    if config.stage == "distill" and not has_depth:
        raise ConfigError(f"base: {config.base} has no depth stream: stage distill needs a Modality Forcing model")
    depth_only = ("depth_channels", "depth_decoder_num_layers", "cross_stream_timestep_mixing", "depth_lapped")
    for key, value in wanted.items():
        if (has_depth or key not in depth_only) and found[key] != value:
            raise ConfigError(f"architecture.{key} is {value}, but the base {config.base} has {found[key]}")


def check_source(config: TrainConfig, source: Source) -> None:
    """Raises ConfigError where the data's sizes are not the model's; reads one sample of encoded data."""
    sizes, place = config.sizes(), next(iter(config.data.parts()), "the stream")
    channels = source.latent_shape[0]
    if channels != sizes.in_channels:
        raise ConfigError(
            f"architecture.in_channels is {sizes.in_channels}, but the latents of {place} have {channels} channels"
        )
    features = source.null_text.shape[-1]
    if features != sizes.context_in_dim:
        raise ConfigError(
            f"architecture.context_in_dim is {sizes.context_in_dim}, but the text features of {place} "
            f"are {features} wide"
        )
    if not config.has_depth or config.data.source != "encoded":
        return
    rgb, depth, _ = source.batch(0, slice(0, 1))
    if depth is None:
        raise ConfigError(f"data.latents: stage {config.stage} needs depth, which {place} does not have")
    patch, (height, width) = sizes.depth_patch_size, rgb.shape[2:]
    if depth.shape[1:] != (height * patch, width * patch):
        raise ConfigError(
            f"architecture.depth_channels is {sizes.depth_channels}, patches of {patch}x{patch} pixels, but the depth "
            f"maps of {place} are {depth.shape[1]}x{depth.shape[2]} for latents of {height}x{width}"
        )


def check_continued(config: TrainConfig, last_step: int) -> None:
    """Raises ConfigError where the run in ``config.out`` was another one, or is past this one's end.

    Args:
        last_step: of its last checkpoint, 0 where it has none.
    """
    path = config.out / SETTINGS
    if not last_step or not path.exists():
        return
    before, now = read_settings(path), config.model_dump(mode="json")
    different = [key for key in _FIXED if _comparable(before.get(key)) != _comparable(now[key])]
    if different:
        raise ConfigError(
            f"{config.out} holds a run of {last_step} steps with another {' and '.join(different)}: choose "
            "another out, or continue it all the same with --changed"
        )
    if last_step > config.steps:
        raise ConfigError(
            f"{config.out} holds a run of {last_step} steps, more than steps = {config.steps}: choose another out, or "
            "end it there with --changed"
        )


def read_settings(path: Path) -> dict[str, Any]:
    """The configuration that a run wrote; keys that it did not know yet have their defaults."""
    values = json.loads(path.read_text(encoding="utf-8"))
    try:
        return TrainConfig.model_validate(values).model_dump(mode="json")
    except ValidationError:  # of a version with other keys
        return values


def _comparable(value: Any) -> Any:
    """With paths of files that exist made absolute: the working directory may be another."""
    if isinstance(value, dict):
        return {key: _comparable(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_comparable(part) for part in value]
    if isinstance(value, str) and Path(value).exists():
        return str(Path(value).resolve())
    return value
