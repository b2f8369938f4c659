"""Typed training configuration, read from TOML and checked before anything else is loaded."""

import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..mforce_core.config import Architecture, ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """``latents``: folder written by ``python -m mforce.training.latents``."""

    latents: Path
    caption_dropout: float = Field(0.1, ge=0, le=1)


class OptimizerConfig(_Section):
    """Muon on the blocks' matrices (or AdamW on all), AdamW elsewhere; warm-up, constant, linear cool-down."""

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(200, ge=0)
    cooldown_steps: int = Field(2000, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)


class RecipeConfig(_Section):
    """What the paper discloses (task mix, losses) and what it leaves open (the rest); see :mod:`.recipe`."""

    time_mu: float = 1.1
    probability_i2d: float = Field(0.2, ge=0, le=1)
    probability_d2i: float = Field(0.2, ge=0, le=1)
    depth_loss_weight: float = Field(1.0, ge=0)
    depth_weighting: Literal["uniform", "relative"] = "relative"
    sparse_probability: float = Field(0.5, ge=0, le=1)
    distillation_high: float = Field(1.0, ge=0)
    distillation_low: float = Field(0.1, ge=0)


class TrainConfig(_Section):
    """One training stage.

    ``t2i`` trains the text-to-image half from scratch; ``mf`` starts from ``base`` (a model folder of a t2i stage or a
    FLUX.2-klein file) and adds the depth stream.
    """

    stage: Literal["t2i", "mf"]
    out: Path
    base: Path | None = None
    text_encoder: Path
    architecture: dict
    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    seed: int = 0
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = True
    log_every: int = Field(20, gt=0)
    save_every: int = Field(1000, gt=0)
    data: DataConfig
    optimizer: OptimizerConfig
    recipe: RecipeConfig = RecipeConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        sizes = self.sizes()
        if self.stage == "mf" and (self.base is None or not sizes.has_depth):
            raise ValueError("stage mf needs a base and an architecture with depth_channels")
        if self.stage == "t2i" and sizes.has_depth:
            raise ValueError("stage t2i has no depth stream: set depth_channels = 0")
        if self.recipe.probability_i2d + self.recipe.probability_d2i > 1:
            raise ValueError("probability_i2d + probability_d2i exceeds 1")
        return self

    def sizes(self) -> Architecture:
        return Architecture.from_dict(self.architecture)


def read_train_config(path: Path, overrides: list[str]) -> TrainConfig:
    """Read a TOML file; ``overrides`` are ``section.key=value`` with TOML values.

    Raises:
        ConfigError: unreadable file, unknown key, value out of range; the message names the key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        for override in overrides:
            key, _, value = override.partition("=")
            target = values
            *sections, leaf = key.strip().split(".")
            for section in sections:
                target = target.setdefault(section, {})
            try:
                target[leaf] = tomllib.loads(f"v = {value}")["v"]
            except tomllib.TOMLDecodeError:
                target[leaf] = value
        return TrainConfig.model_validate(values)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {problems}") from error
