"""A study of few-step distillation: students of one teacher that differ in a few keys, each a run of its own."""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import torch
from pydantic import Field

from ..mforce_core.model.config import ConfigError
from .checks import check_config
from .config import TrainConfig
from .config_file import PRESETS, read_config, read_train_config
from .export import MODEL
from .section import Section
from .stop import Stopped
from .study import Variant
from .train import train

#: Studies that ship with the package, by file name without its ending.
STUDIES = PRESETS / "distillation"


class DistillationStudy(Section):
    """Variants of a preset or file of stage distill, and what is measured of each."""

    title: str
    out: Path
    config: Path
    set: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = Field(min_length=1)
    steps: tuple[int, ...] = (1, 2, 4, 8)
    teacher_steps: int = Field(50, gt=0)
    prompts: int = Field(96, ge=2)
    scenes: int = Field(64, ge=2)
    varied: int = Field(8, ge=2)
    seeds: int = Field(4, ge=2)


def read_distillation_study(path: Path) -> DistillationStudy:
    """A TOML file, or a study of the package by its name; see :func:`.config_file.read_config`."""
    return read_config(DistillationStudy, path, STUDIES)


def students(study: DistillationStudy, overrides: Sequence[str] = (), only: str = "*") -> dict[str, TrainConfig]:
    """Configurations by the variants' names.

    Raises:
        ConfigError: a bad configuration, another stage, or no variant of such a name.
    """
    chosen = [variant for variant in study.variants if fnmatch(variant.name, only)]
    if not chosen:
        raise ConfigError(f"no variant is called {only}: they are {', '.join(v.name for v in study.variants)}")
    configs = {}
    for variant in chosen:
        out = f"out={str(study.out / variant.name)!r}"
        config = read_train_config(study.config, [*study.set, *variant.set, *overrides, out])
        if config.stage != "distill":
            raise ConfigError(f"a study of distillation needs stage distill, and {study.config} is of {config.stage}")
        configs[variant.name] = config
    return configs


def train_students(configs: dict[str, TrainConfig]) -> dict[str, Path]:
    """Train what is not trained yet; returns the models' folders.

    Raises:
        Stopped: Ctrl-C or SIGTERM ended one of the runs, which the same command resumes.
    """
    for config in configs.values():
        check_config(config, 1)
    for name, config in configs.items():
        print(f"{name}: {config.steps} steps", flush=True)
        torch.compiler.reset()
        stopped = train(config).signal
        if stopped is not None:
            raise Stopped(stopped)
    return {name: config.out / MODEL for name, config in configs.items()}
