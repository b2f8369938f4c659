"""A study: both stages at several sizes, text-to-image budgets and recipes, and the held-out error of each.

Every cell of the grid is a run like any other, in a folder of its own, so that a study that was stopped resumes and
several machines can each take a part of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from pydantic import Field, model_validator

from ..mforce_core.model.config import ConfigError
from ..mforce_core.weights.header import read_header
from .checks import SETTINGS, check_data, read_settings
from .config import TrainConfig
from .config_file import PRESETS, read_config, read_train_config
from .log import read_log
from .section import Section
from .stop import Stopped
from .study_report import write_study_report
from .train import train

#: Studies that ship with the package, by file name without its ending.
STUDIES = PRESETS / "studies"

#: Shares of a stage's steps in which the learning rate rises and falls, so that budgets differ in length alone.
_WARM_UP, _COOL_DOWN = 0.1, 0.3

#: In a cell's folder.
RESULT = "result.json"


class StageConfig(Section):
    """A stage's configuration file or preset, and overrides ``section.key=value`` for all cells."""

    config: Path
    set: tuple[str, ...] = ()


class Variant(Section):
    """A size or a recipe: overrides with a name."""

    name: str = Field(pattern=r"^[\w.]+$")
    set: tuple[str, ...] = ()


class StudyConfig(Section):
    """The grid: ``models`` x ``pretraining_images`` x ``recipes`` x ``seeds``.

    The overrides of a model apply to both stages, those of a recipe to the second, and so do seeds; without any it has
    its preset's. Budgets are in images, multiples of the batch. Runs of the second stage go to ``out``, those of the
    first to ``bases``, which studies can share.
    """

    title: str
    out: Path
    bases: Path
    t2i: StageConfig
    mf: StageConfig
    models: tuple[Variant, ...] = Field(min_length=1)
    pretraining_images: tuple[int, ...] = Field(min_length=1)
    mf_images: int
    recipes: tuple[Variant, ...] = (Variant(name="default"),)
    seeds: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _named_once(self) -> "StudyConfig":
        for kind in ("models", "recipes"):
            names = [variant.name for variant in getattr(self, kind)]
            if len(set(names)) < len(names):
                raise ValueError(f"{kind} need names of their own")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds are there once each")
        return self


@dataclass(frozen=True)
class Cell:
    """One point of the grid."""

    model: Variant
    pretraining_images: int
    recipe: Variant
    seed: int | None

    @property
    def base(self) -> str:
        return f"{self.model.name}-{self.pretraining_images}"

    @property
    def name(self) -> str:
        return f"{self.base}-{self.recipe.name}" + ("" if self.seed is None else f".{self.seed}")

    @property
    def overrides(self) -> list[str]:
        """Of the second stage."""
        return [*self.model.set, *self.recipe.set, *([] if self.seed is None else [f"seed={self.seed}"])]


def read_study(path: Path) -> StudyConfig:
    """A TOML file, or a study of the package by its name; see :func:`.config_file.read_config`."""
    return read_config(StudyConfig, path, STUDIES)


def cells(study: StudyConfig, only: str = "*") -> list[Cell]:
    """The cells whose names match a pattern of the shell's kind."""
    grid = [
        Cell(model, images, recipe, seed)
        for model in study.models
        for images in study.pretraining_images
        for recipe in study.recipes
        for seed in study.seeds or (None,)
    ]
    found = [cell for cell in grid if fnmatch(cell.name, only)]
    if not found:
        raise ConfigError(f"no cell is called {only}: they are {', '.join(cell.name for cell in grid)}")
    return found


def configurations(study: StudyConfig, cell: Cell, overrides: Sequence[str] = ()) -> tuple[TrainConfig, TrainConfig]:
    """Of both stages of a cell. Raises ConfigError."""
    base = study.bases / cell.base
    t2i = _budgeted(study.t2i, cell.pretraining_images, base, [*cell.model.set, *overrides])
    more = [*cell.overrides, *overrides, f"base={json.dumps(str(base / 'model'))}"]
    mf = _budgeted(study.mf, study.mf_images, study.out / cell.name, more)
    if mf.heldout is None:
        raise ConfigError("mf.set needs heldout.latents: a study compares errors on samples that training never sees")
    return t2i, mf


def run_study(
    study: StudyConfig, *, only: str = "*", overrides: Sequence[str] = (), machine: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Train the cells that have no result yet, measure them, and write the report of all that are finished.

    Args:
        only: pattern of the cells' names.
        overrides: ``section.key=value`` for both stages of every cell.
        machine: what the cells run on, kept with their results.

    Returns:
        A record of every finished cell of the study.

    Raises:
        ConfigError: a bad configuration, data that is not there, or a run with other settings in a cell's folder.
        Stopped: Ctrl-C or SIGTERM ended one of the runs.
    """
    planned = [(cell, *configurations(study, cell, overrides)) for cell in cells(study, only)]
    for config in (config for _, *stages in planned for config in stages):
        check_data(config)
        _check_made_with(config)
    for cell, t2i, mf in planned:
        path = mf.out / RESULT
        if path.exists():
            continue
        print(f"{cell.name}: {t2i.steps} steps of text to image, {mf.steps} of Modality Forcing", flush=True)
        for config in (t2i, mf):
            torch.compiler.reset()  # the last cell's graphs are of no use to another size
            stopped = train(config).signal
            if stopped is not None:
                raise Stopped(stopped)  # the same command resumes from its checkpoint
        result = _measured(cell, study, t2i, mf) | {"machine": dict(machine)}
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    results = finished(study)
    write_study_report(study.title, results, study.out)
    return results


def finished(study: StudyConfig) -> list[dict[str, Any]]:
    """Records of the cells that have a result, in the grid's order."""
    paths = [study.out / cell.name / RESULT for cell in cells(study)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def _check_made_with(config: TrainConfig) -> None:
    """Raises ConfigError where the folder of a run holds one with other settings."""
    path = config.out / SETTINGS
    if path.exists() and read_settings(path) != config.model_dump(mode="json"):
        raise ConfigError(f"{config.out} holds a run with other settings: move it away, or change the study's folders")


def _measured(cell: Cell, study: StudyConfig, t2i: TrainConfig, mf: TrainConfig) -> dict[str, Any]:
    look = next(entry for entry in reversed(read_log(mf.out)) if "heldout_absrel" in entry)
    curve = [entry for entry in read_log(t2i.out) if "rgb" in entry]
    assert mf.heldout is not None
    return {
        "cell": cell.name,
        "model": cell.model.name,
        "recipe": cell.recipe.name,
        "seed": mf.seed,
        "pretraining_images": cell.pretraining_images,
        "mf_images": study.mf_images,
        "t2i_parameters": _parameters(t2i.out / "model"),
        "parameters": _parameters(mf.out / "model"),
        "t2i_loss": mean(entry["rgb"] for entry in curve[-max(1, len(curve) // 10) :]) if curve else None,
        "absrel": look["heldout_absrel"],
        "absrel_standard_error": look["heldout_absrel_standard_error"],
        "delta1": look["heldout_delta1"],
        "rgb_loss": look["heldout_rgb"],
        "heldout_samples": mf.heldout.samples,
    }


def _parameters(model: Path) -> int:
    return sum(shape.numel() for shape in map(torch.Size, read_header(model).shapes.values()))


def _budgeted(stage: StageConfig, images: int, out: Path, overrides: Sequence[str]) -> TrainConfig:
    config = read_train_config(stage.config, [*stage.set, *overrides])
    steps, rest = divmod(images, config.batch_size)
    if rest or steps == 0:
        raise ConfigError(f"{images} images are no whole number of batches of {config.batch_size}")
    length = [f"steps={steps}", f"out={json.dumps(str(out))}"]
    length += [f"optimizer.warmup_steps={int(_WARM_UP * steps)}", f"optimizer.cooldown_steps={int(_COOL_DOWN * steps)}"]
    return read_train_config(stage.config, [*stage.set, *overrides, *length])
