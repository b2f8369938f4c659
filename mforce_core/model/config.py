"""Sizes of a Modality Forcing transformer: the published variants, ``config.json``, or inferred from tensors."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..file_kinds import what_is
from ..release import DEPTH_CHANNELS, RGB_CHANNELS, SHIFT_MU, SHIFT_SIGMA
from ..text_file import read_text

#: Time is embedded in this many sinusoids before the time MLPs; fixed for the whole FLUX.2 family.
TIME_FREQUENCIES = 256


#: What the RGB output can be: the velocity eps - x_0, or the clean latents x_0 that imply one.
RGB_PREDICTIONS = ("velocity", "clean")

#: A tensor of one number that models with ``depth_lapped`` have, whatever the number.
LAPPED_MARKER = "depth_lapped"


class ConfigError(ValueError):
    """A configuration or checkpoint that does not describe a Modality Forcing model."""


#: Smallest and largest value of the sizes; far beyond every published model, near enough to build quickly.
_LIMITS = {
    **dict.fromkeys(("in_channels", "context_in_dim", "hidden_size", "num_heads"), (1, 1 << 20)),
    **dict.fromkeys(("depth_channels", "num_kv_heads"), (0, 1 << 20)),
    **dict.fromkeys(("depth_double", "depth_single", "depth_decoder_num_layers"), (0, 512)),
}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    # Comparing before converting: a JSON integer may be too large for a float.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def _short(value: object) -> str:
    """A value for a sentence; whole numbers of more than a few thousand digits have no text in Python."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = "something too long to show"
    return text if len(text) <= 60 else text[:60] + "..."


@dataclass(frozen=True)
class Architecture:
    """Sizes of the transformer; the defaults are the published 12 B model (v2).

    ``depth_channels == 0`` is a plain FLUX.2 text-to-image model without a depth stream. ``num_kv_heads`` below
    ``num_heads`` is grouped-query attention, 0 is as many as those. ``rgb_prediction`` is what the weights were trained
    to give; no tensor tells it. ``depth_lapped`` is depth patches that overlap (:mod:`.lapped`) in place of cut
    ones. ``depth_double == 0`` is a transformer of one sequence.
    """

    in_channels: int = RGB_CHANNELS
    depth_channels: int = DEPTH_CHANNELS
    context_in_dim: int = 12288
    hidden_size: int = 4096
    num_heads: int = 32
    depth_double: int = 8
    depth_single: int = 24
    depth_decoder_num_layers: int = 4
    axes_dim: tuple[int, ...] = (32, 32, 32, 32)
    theta: float = 2000
    mlp_ratio: float = 3.0
    use_guidance_embed: bool = False
    cross_stream_timestep_mixing: bool = True
    num_kv_heads: int = 0
    rgb_prediction: str = "velocity"
    depth_lapped: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not _is_whole(value) or not low <= value <= high:
                kind = "a positive integer" if low else "an integer of at least 0"
                raise ConfigError(f"architecture.{name} must be {kind} up to {high:,}, got {_short(value)}")
        for name, most in (("theta", 1e12), ("mlp_ratio", 64.0)):
            value = getattr(self, name)
            if not (_is_number(value) and 0 < value <= most):
                raise ConfigError(f"architecture.{name} must be a number above 0 up to {most:g}, got {_short(value)}")
        for name in ("use_guidance_embed", "cross_stream_timestep_mixing", "depth_lapped"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"architecture.{name} must be true or false, got {_short(getattr(self, name))}")
        if self.rgb_prediction not in RGB_PREDICTIONS:
            given = _short(self.rgb_prediction)
            raise ConfigError(f"architecture.rgb_prediction must be {' or '.join(RGB_PREDICTIONS)}, got {given}")
        if not isinstance(self.axes_dim, (list, tuple)) or not all(
            _is_whole(side) and side > 0 for side in self.axes_dim
        ):
            raise ConfigError(f"architecture.axes_dim must be four even numbers, got {_short(self.axes_dim)}")
        object.__setattr__(self, "axes_dim", tuple(self.axes_dim))
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}")
        if self.num_heads % self.kv_heads:
            raise ConfigError(f"num_heads {self.num_heads} is not divisible by num_kv_heads {self.num_kv_heads}")
        if len(self.axes_dim) != 4 or sum(self.axes_dim) != self.head_dim or any(d % 2 for d in self.axes_dim):
            raise ConfigError(
                f"axes_dim {list(self.axes_dim)} must be four even numbers that sum to the head size {self.head_dim}"
            )
        if self.has_depth and math.isqrt(self.depth_channels) ** 2 != self.depth_channels:
            raise ConfigError(f"depth_channels {self.depth_channels} is not the area of a square patch")
        if self.depth_lapped and self.has_depth and self.depth_patch_size % 2:
            raise ConfigError(f"depth_lapped needs patches of an even side, not of {self.depth_patch_size} pixels")

    @property
    def head_dim(self) -> int:
        """Features of a head."""
        return self.hidden_size // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values, each of which serves ``num_heads / kv_heads`` heads of queries."""
        return self.num_kv_heads or self.num_heads

    @property
    def qkv_dim(self) -> int:
        """Queries, keys and values of a token together."""
        return (self.num_heads + 2 * self.kv_heads) * self.head_dim

    @property
    def mlp_dim(self) -> int:
        """Width of an MLP between its two Linears, after the gate."""
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def has_depth(self) -> bool:
        """Whether there is a depth stream; a text-to-image base has none."""
        return self.depth_channels > 0

    @property
    def depth_patch_size(self) -> int:
        """Side of a depth patch in pixels (16 in the release)."""
        return math.isqrt(self.depth_channels)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Architecture":
        """Build from the ``architecture`` object of a ``config.json``; unknown keys are an error."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"the architecture must be an object of names and sizes, got {_short(values)}")
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            listed = ", ".join(key[:40] for key in unknown[:5])
            raise ConfigError(f"unknown architecture key(s) {listed}; known: {', '.join(sorted(known))}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` reads."""
        return asdict(self) | {"axes_dim": list(self.axes_dim)}


@dataclass(frozen=True)
class Schedule:
    """Parameters of the timestep shift of each stream (see :mod:`.schedule`); the release's values."""

    rgb_shift_mu: float = SHIFT_MU
    depth_shift_mu: float = SHIFT_MU
    rgb_shift_sigma: float = SHIFT_SIGMA
    depth_shift_sigma: float = SHIFT_SIGMA

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not _is_number(value) or abs(value) > 100:
                raise ConfigError(f"schedule.{name} must be a number from -100 to 100, got {_short(value)}")


#: Most steps that a model of few steps may say it was made for.
_MOST_STEPS = 1000

#: What it need not say.
_OPTIONAL = {"sampler", "i2d_steps", "d2i_steps"}


@dataclass(frozen=True)
class Distilled:
    """How a model is to be run that was made for few steps without guidance.

    Attributes:
        steps: that it was made for.
        path: of joint sampling, as :meth:`..sampling.path_spec.PathSpec.parse` reads it.
        sampler: of all three tasks, by its name in :data:`..sampling.solvers.SOLVERS`.
        i2d_steps, d2i_steps: of image to depth, which may need fewer, and of depth to image, which may need more; None:
            ``steps``.
    """

    steps: int
    path: str
    sampler: str = "euler"
    i2d_steps: int | None = None
    d2i_steps: int | None = None

    def __post_init__(self) -> None:
        counts = {"steps": self.steps, "i2d_steps": self.steps_of("i2d"), "d2i_steps": self.steps_of("d2i")}
        for name, value in counts.items():
            if not _is_whole(value) or not 1 <= value <= _MOST_STEPS:
                raise ConfigError(f"distilled.{name} must be an integer from 1 to {_MOST_STEPS}, got {_short(value)}")
        for name in ("path", "sampler"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"distilled.{name} must be a text, got {_short(getattr(self, name))}")

    @classmethod
    def from_dict(cls, values: Any) -> "Distilled | None":
        """Build from the ``distilled`` object of a ``config.json``; None where there is none."""
        if values is None:
            return None
        if not isinstance(values, Mapping) or set(values) - _OPTIONAL != {"steps", "path"}:
            raise ConfigError(
                f"distilled must be an object of steps, path, sampler, i2d_steps and d2i_steps, got {_short(values)}"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` reads."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def steps_of(self, mode: str) -> int:
        """Of ``joint``, ``i2d`` or ``d2i``."""
        own = {"i2d": self.i2d_steps, "d2i": self.d2i_steps}.get(mode)
        return self.steps if own is None else own

    @property
    def exceptions(self) -> str:
        """In words, the tasks that take other steps; empty where none does."""
        tasks = (("image to depth", self.i2d_steps), ("depth to image", self.d2i_steps))
        return " and ".join(f"{steps} from {task}" for task, steps in tasks if steps is not None)


VARIANTS: dict[str, Architecture] = {
    "flux_rgbd_9b_v1": Architecture(cross_stream_timestep_mixing=False),
    "flux_rgbd_9b_v2": Architecture(),
}


@dataclass(frozen=True)
class ModelConfig:
    """What ``config.json`` says, or the ``config`` in a file's metadata.

    ``architecture`` is None where it is left to the tensors, ``distilled`` where the model takes as many steps as one
    gives it. ``license`` is the name of the weights' license, where they say it themselves.
    """

    architecture: Architecture | None = None
    schedule: Schedule = field(default_factory=Schedule)
    variant: str | None = None
    distilled: Distilled | None = None
    license: str | None = None

    @classmethod
    def from_dict(cls, values: Any) -> "ModelConfig":
        """Build from ``{"variant": name}`` or ``{"architecture": {...}}``, and optionally ``schedule``, ``distilled``
        and ``license``; other keys are left alone."""
        if not isinstance(values, Mapping):
            raise ConfigError("a JSON object belongs there")
        variant, architecture = values.get("variant"), values.get("architecture")
        if architecture is not None:
            architecture = Architecture.from_dict(architecture)
        elif variant is not None:
            if not isinstance(variant, str) or variant not in VARIANTS:
                raise ConfigError(f"unknown variant {_short(variant)}; known: {', '.join(VARIANTS)}")
            architecture = VARIANTS[variant]
        try:
            schedule = Schedule(**values.get("schedule", {}))
        except TypeError as error:
            raise ConfigError(f"unknown schedule key: {str(error)[:120]}") from error
        license = values.get("license")
        return cls(
            architecture=architecture,
            schedule=schedule,
            variant=variant if isinstance(variant, str) else None,
            distilled=Distilled.from_dict(values.get("distilled")),
            license=license if isinstance(license, str) else None,
        )


def read_config(path: Path) -> ModelConfig:
    """Read a ``config.json``.

    Raises:
        ConfigError: not JSON, an unknown variant or key, impossible sizes.
    """
    try:
        values = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        kind = what_is(path)
        raise ConfigError(f"{path} cannot be read as JSON: {f'it is {kind}' if kind else str(error)[:160]}") from error
    try:
        return ModelConfig.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _count(names: Mapping[str, Sequence[int]], prefix: str) -> int:
    return len({name.split(".")[1] for name in names if name.startswith(prefix + ".")})


def infer_architecture(shapes: Mapping[str, Sequence[int]]) -> Architecture:
    """Sizes from tensor names (without prefix) and shapes.

    RoPE axes are not in any tensor: the head is split in four equal axes, as in every published model.

    Raises:
        ConfigError: the tensors are not those of a FLUX.2-family transformer.
    """

    def shape(name: str) -> Sequence[int]:
        if name not in shapes:
            raise ConfigError(f"this is not a Modality Forcing or FLUX.2 transformer: the tensor {name!r} is missing")
        if len(shapes[name]) != 2 or 0 in shapes[name]:
            raise ConfigError(f"the tensor {name!r} has shape {tuple(shapes[name])}, a matrix belongs there")
        return shapes[name]

    hidden_size, in_channels = shape("img_in.weight")
    query_norms = [name for name in shapes if name.endswith("norm.query_norm.scale")]
    if not query_norms:
        raise ConfigError("this is not a FLUX.2-family transformer: no block has a query_norm.scale")
    head_dim = shapes[query_norms[0]][0] if len(shapes[query_norms[0]]) == 1 else 0
    if not 0 < head_dim <= hidden_size:
        raise ConfigError(f"the tensor {query_norms[0]!r} has shape {tuple(shapes[query_norms[0]])}, not a head's")
    depth_single = _count(shapes, "single_blocks")
    if depth_single:
        mlp_dim = shape("single_blocks.0.linear2.weight")[1] - hidden_size
        qkv_dim = shape("single_blocks.0.linear1.weight")[0] - 2 * mlp_dim
    else:
        mlp_dim = shape("double_blocks.0.img_mlp.2.weight")[1]
        qkv_dim = shape("double_blocks.0.img_attn.qkv.weight")[0]
    heads = hidden_size // head_dim
    kv_heads = max(0, qkv_dim // head_dim - heads) // 2
    return Architecture(
        in_channels=in_channels,
        depth_channels=shape("depth_in.weight")[1] if "depth_in.weight" in shapes else 0,
        context_in_dim=shape("txt_in.weight")[1],
        hidden_size=hidden_size,
        num_heads=heads,
        depth_double=_count(shapes, "double_blocks"),
        depth_single=depth_single,
        depth_decoder_num_layers=_count(shapes, "depth_decoder_blocks"),
        axes_dim=(head_dim // 4,) * 4,
        mlp_ratio=mlp_dim / hidden_size,
        use_guidance_embed="guidance_in.in_layer.weight" in shapes,
        cross_stream_timestep_mixing="cross_alpha_img" in shapes,
        num_kv_heads=0 if kv_heads == heads else kv_heads,
        depth_lapped=LAPPED_MARKER in shapes,
    )
