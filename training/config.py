"""Typed training configuration, read from TOML and checked before anything else is loaded."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..mforce_core.model.config import Architecture, ConfigError
from ..mforce_core.release import RELEASE_SIZE, SHIFT_MU, TEXT_TOKENS
from ..mforce_core.weights.checkpoint import read_header

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Configurations that ship with the package, by file name without its ending.
PRESETS = Path(__file__).parent / "configs"


class Section(BaseModel):
    """Part of a configuration file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Config = TypeVar("_Config", bound=Section)


class DataConfig(Section):
    """Where samples come from.

    ``source``: ``encoded`` reads the folder ``latents`` as ``mforce data encode`` writes it; ``stream`` reads
    ``shards`` of files and encodes them as they come with ``autoencoder``. ``size`` is that of the pictures, (height,
    width), and ``text_tokens`` the length of a prompt's features: a stream cuts pictures to it; otherwise they only
    serve the plan.
    """

    source: Literal["encoded", "stream"] = "encoded"
    latents: Path | None = None
    shards: tuple[str, ...] = ()
    autoencoder: Path | None = None
    size: tuple[int, int] = (RELEASE_SIZE, RELEASE_SIZE)
    text_tokens: int = Field(TEXT_TOKENS, gt=0)
    caption_dropout: float = Field(0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _complete(self) -> "DataConfig":
        if self.source == "stream" and (not self.shards or self.autoencoder is None):
            raise ValueError("source = stream needs shards and an autoencoder")
        if self.source != "stream" and self.latents is None:
            raise ValueError(f"source = {self.source} needs latents, a folder")
        return self


class OptimizerConfig(Section):
    """Muon on the blocks' matrices (or AdamW on all), AdamW elsewhere; warm-up, constant, linear cool-down."""

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(200, ge=0)
    cooldown_steps: int = Field(2000, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)


class RecipeConfig(Section):
    """What the paper discloses (task mix, losses) and what it leaves open (the rest); see :mod:`.recipe`."""

    time_mu: float = SHIFT_MU
    probability_i2d: float = Field(0.2, ge=0, le=1)
    probability_d2i: float = Field(0.2, ge=0, le=1)
    depth_loss_weight: float = Field(1.0, ge=0)
    depth_weighting: Literal["uniform", "relative"] = "relative"
    sparse_probability: float = Field(0.5, ge=0, le=1)
    depth_share: float = Field(1.0, gt=0, le=1)
    distillation_high: float = Field(1.0, ge=0)
    distillation_low: float = Field(0.1, ge=0)
    depth_start: Literal["gated", "image", "fresh"] = "gated"

    @property
    def distils(self) -> bool:
        return self.distillation_high > 0 or self.distillation_low > 0


class LoraConfig(Section):
    """Low-rank updates of the image and text half; ``targets`` are the ends of the names of Linear layers.

    ``merge`` adds them to the exported model; without it the model keeps the base's weights and the LoRA file is to be
    loaded with it.
    """

    rank: int = Field(16, gt=0)
    alpha: float = Field(16.0, gt=0)
    targets: tuple[str, ...] = (
        *("img_attn.qkv", "img_attn.proj", "txt_attn.qkv", "txt_attn.proj"),
        *("img_mlp.0", "img_mlp.2", "txt_mlp.0", "txt_mlp.2", "linear1", "linear2"),
    )
    merge: bool = True


class ScaleConfig(Section):
    """How a step fits the hardware; none of it changes what is computed.

    ``micro_batch_size``: samples of one forward pass of one process, its share of the batch where it is None.
    ``teacher``: where the frozen teacher's matrices lie when the student does not hold them itself; ``host`` leaves
    them in the base's mapped file and moves each to the device when it is used.
    """

    micro_batch_size: int | None = Field(None, gt=0)
    checkpoint_activations: bool = False
    teacher: Literal["device", "host"] = "device"


class HeldOutConfig(Section):
    """Samples that training never sees, looked at every ``every`` steps and at the end: AbsRel and delta1 of image to
    depth, and pictures of the first of them, in color with an autoencoder."""

    latents: Path
    autoencoder: Path | None = None
    every: int = Field(500, gt=0)
    samples: int = Field(8, gt=0)
    sampling_steps: int = Field(20, gt=0)


class TrainConfig(Section):
    """One training stage.

    ``t2i`` trains the text-to-image half, from scratch or from ``base``; ``mf`` starts from ``base`` (a model folder of
    a t2i stage, a FLUX.2-klein file or a Modality Forcing model) and adds the depth stream where it is missing.
    ``trainable``: ``all``, the ``depth`` stream alone, or ``lora``: the depth stream, and low-rank updates of the rest.
    """

    stage: Literal["t2i", "mf"]
    out: Path
    base: Path | None = None
    text_encoder: Path | None = None
    trainable: Literal["all", "depth", "lora"] = "all"
    architecture: dict[str, Any]
    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    seed: int = Field(0, ge=0)
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = True
    log_every: int = Field(20, gt=0)
    save_every: int = Field(1000, gt=0)
    keep_last: int = Field(2, gt=0)
    tensorboard: bool = False
    data: DataConfig
    optimizer: OptimizerConfig
    recipe: RecipeConfig = RecipeConfig()
    lora: LoraConfig = LoraConfig()
    scale: ScaleConfig = ScaleConfig()
    heldout: HeldOutConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        sizes = self.sizes()
        if self.stage == "mf" and (self.base is None or not sizes.has_depth):
            raise ValueError("stage mf needs a base and an architecture with depth_channels")
        if self.stage == "t2i" and sizes.has_depth:
            raise ValueError("stage t2i has no depth stream: set depth_channels = 0")
        if self.recipe.probability_i2d + self.recipe.probability_d2i > 1:
            raise ValueError("probability_i2d + probability_d2i exceeds 1")
        if self.trainable == "depth" and self.stage == "t2i":
            raise ValueError("trainable = depth needs stage mf: a t2i stage has no depth stream")
        if self.trainable == "lora" and self.base is None:
            raise ValueError("trainable = lora needs a base, whose weights it leaves as they are")
        if self.text_encoder is None and self.data.source == "stream":
            raise ValueError("data.source = stream needs a text_encoder")
        if self.heldout is not None and self.stage == "t2i":
            raise ValueError("heldout measures depth: it needs stage mf")
        return self

    def sizes(self) -> Architecture:
        return Architecture.from_dict(self.architecture)

    def check_processes(self, count: int) -> None:
        """Raises ConfigError where this many processes cannot share the batch."""
        if self.batch_size % count:
            raise ConfigError(f"batch_size {self.batch_size} cannot be shared equally by {count} processes")

    def check_data(self) -> None:
        """Raises ConfigError where a folder of latents is missing or empty."""
        folders = {
            "data.latents": self.data.latents if self.data.source == "encoded" else None,
            "heldout.latents": None if self.heldout is None else self.heldout.latents,
        }
        for key, folder in folders.items():
            if folder is not None and next(folder.glob("latents-*.safetensors"), None) is None:
                raise ConfigError(f"{key}: {folder} holds no latents-*.safetensors: run mforce data encode first")

    def check_base(self) -> None:
        """Raises a ValueError where the base is missing, unreadable or of other sizes; reads its header alone."""
        if self.base is None:
            return
        if not self.base.exists():
            raise ConfigError(f"base: {self.base} does not exist: train it first or give another one")
        wanted, found = self.sizes().to_dict(), read_header(self.base).architecture.to_dict()
        has_depth = found["depth_channels"] > 0
        depth_only = ("depth_channels", "depth_decoder_num_layers", "cross_stream_timestep_mixing")
        for key, value in wanted.items():
            if (has_depth or key not in depth_only) and found[key] != value:
                raise ConfigError(f"architecture.{key} is {value}, but the base {self.base} has {found[key]}")


def read_train_config(path: Path, overrides: list[str]) -> TrainConfig:
    """Read a TOML file or a preset by its name; see :func:`read_config`."""
    return read_config(TrainConfig, path, PRESETS, overrides)


def read_config(kind: type[_Config], path: Path, presets: Path, overrides: Sequence[str] = ()) -> _Config:
    """Read a TOML file, or one of the folder ``presets`` by its name; ``overrides`` are ``section.key=value`` with TOML
    values.

    A file may name another one beside it, ``extends = "other.toml"``, and say only what differs.

    Raises:
        ConfigError: unreadable file, unknown key, value out of range; the message names the key.
    """
    if not path.exists() and (presets / f"{path}.toml").exists():
        path = presets / f"{path}.toml"
    try:
        values = _read_toml(path)
        for override in overrides:
            _apply(values, override)
        return kind.model_validate(values)
    except FileNotFoundError as error:
        names = ", ".join(sorted(file.stem for file in presets.glob("[!_]*.toml")))
        raise ConfigError(f"{error.filename} does not exist: give a TOML file or one of {names}") from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(map(_problem, error.errors()))}") from error


def _problem(error: Mapping[str, Any]) -> str:
    """One of pydantic's findings: the key, and what is wrong."""
    key = ".".join(map(str, error["loc"])) or "config"
    return f"{key}: {error['msg'].removeprefix('Value error, ')}"


def _read_toml(path: Path) -> dict[str, Any]:
    """A file's values over those of the one that it extends."""
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    parent = values.pop("extends", None)
    return values if parent is None else _merged(_read_toml(path.parent / parent), values)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, section by section."""
    sections = {n: _merged(below[n], v) for n, v in above.items() if isinstance(v, dict) and n in below}
    return below | above | sections


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *sections, leaf = key.strip().split(".")
    if not equals or not leaf:
        raise ConfigError(f"--set {override} is not of the form section.key=value")
    target = values
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override}: {section} is a value, not a section")
    try:
        target[leaf] = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        target[leaf] = text
