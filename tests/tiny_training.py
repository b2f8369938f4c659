"""Training at the smallest size, for tests: a model of 32 channels, random latents of a 2x2 grid, random weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from mforce.mforce_core.encoders.words import WordTextEncoder
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from mforce.mforce_core.weights.checkpoint import save_model
from mforce.training.config import TrainConfig
from mforce.training.config_file import read_train_config

#: Each value of the configuration, by key.
TINY = {
    "batch_size": 4,
    "steps": 8,
    "precision": "float32",
    "compile": "false",
    "architecture.in_channels": 8,
    "architecture.context_in_dim": 8,
    "architecture.hidden_size": 32,
    "architecture.num_heads": 2,
    "architecture.axes_dim": "[4, 4, 4, 4]",
    "architecture.depth_single": 1,
    "optimizer.name": "adamw",
}


def write_latents(
    folder: Path,
    *,
    count: int = 8,
    shape: tuple[int, int] = (2, 2),
    depth: bool = True,
    file: str = "latents-0.safetensors",
    facts: dict | None = None,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Random latents of 8 channels with depth of 4 pixels a latent, part of it not measured; returns the tensors."""
    folder.mkdir(exist_ok=True, parents=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {"rgb": torch.randn(count, 8, *shape, generator=generator).half()}
    if depth:
        maps = (torch.rand(count, 4 * shape[0], 4 * shape[1], generator=generator) * 3).exp()
        tensors["depth"] = torch.where(maps < 1.5, 0, maps).half()
    captions = {"captions": json.dumps((["red cube", "green cube"] * count)[:count])}
    save_file(tensors, folder / file, metadata=captions | ({"facts": json.dumps(facts)} if facts else {}))
    return tensors


def write_words(folder: Path) -> None:
    """The text encoder that all of these tests use."""
    WordTextEncoder.random(["red", "green", "cube"], 8, 2).save(folder / "text_encoder.safetensors")


def write_data(folder: Path) -> Path:
    """Latents and text encoder in one folder."""
    write_latents(folder)
    write_words(folder)
    return folder


def write_base(folder: Path, sizes: TrainConfig) -> Path:
    """A model of random weights, with depth where the sizes have it."""
    model = ModalityForcingTransformer(sizes.sizes(), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    save_model(model, folder, dtype=torch.float32)
    return folder


def arguments(stage: str, data: Path, out: Path, **more: object) -> list[str]:
    """Settings for ``--set``; ``more`` by key."""
    values = TINY | {"out": out, "text_encoder": data, "data.latents": data}
    values |= {"architecture.depth_channels": 16} if stage != "t2i" else {}
    return [f"{key}={value}" for key, value in (values | more).items()]


def config(stage: str, data: Path, out: Path, **more: object) -> TrainConfig:
    return read_train_config(Path(f"_small-{stage}"), arguments(stage, data, out, **more))
