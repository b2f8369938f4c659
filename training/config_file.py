"""From a TOML file, a preset's name and ``--set`` to a typed configuration."""

import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..mforce_core.model.config import ConfigError
from ..mforce_core.text_file import LongTextError, read_text
from .config import TrainConfig
from .section import Section

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Configurations that ship with the package, by file name without its ending.
PRESETS = Path(__file__).parent / "configs"

_Config = TypeVar("_Config", bound=Section)


def read_train_config(path: Path, overrides: Sequence[str]) -> TrainConfig:
    """Read a TOML file or a preset by its name; see :func:`read_config`."""
    return read_config(TrainConfig, path, PRESETS, overrides)


def read_config(kind: type[_Config], path: Path, presets: Path, overrides: Sequence[str] = ()) -> _Config:
    """Read a TOML file, or one of the folder ``presets`` by its name; ``overrides`` are ``section.key=value`` with TOML
    values.

    A file may name a preset or another file, relative to its own folder, as ``extends = "..."``, and say only what
    differs.

    Raises:
        ConfigError: unreadable file, unknown key, value out of range; the message names the key.
    """
    try:
        values = read_values(path, presets)
        for override in overrides:
            _apply(values, override)
        _name_mixture(values, presets)
        return kind.model_validate(values)
    except FileNotFoundError as error:
        names = ", ".join(sorted(file.stem for file in presets.glob("[!_]*.toml")))
        raise ConfigError(f"{error.filename} does not exist: give a TOML file or one of {names}") from None
    except (OSError, UnicodeDecodeError, LongTextError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {str(error)[:200]}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(_problem(kind, found) for found in error.errors())}") from error


def read_values(path: Path, presets: Path = PRESETS) -> dict[str, Any]:
    """A file's values over those of the one that it extends, as they are written."""
    path = _located(path, Path(), presets)
    values = tomllib.loads(read_text(path))
    seen = [path]
    while "extends" in values:
        below = values.pop("extends")
        if not isinstance(below, str) or "\0" in below:
            raise ConfigError(f"{path}: extends is {str(below)[:60]!r}, not the name of a file or preset")
        path = _located(Path(below), path.parent, presets)
        if path in seen:
            raise ConfigError(f"{path} extends itself, by way of {seen[-1]}")
        seen.append(path)
        values = _merged(tomllib.loads(read_text(path)), values)
    return values


def _name_mixture(values: dict[str, Any], presets: Path) -> None:
    """Put the list of a mixture in the place of its name or file."""
    data = values.get("data")
    if isinstance(data, dict) and isinstance(data.get("mixture"), str):
        folder = presets / "mixtures"
        path = _located(Path(data["mixture"]), Path(), folder)
        if not path.exists():
            names = ", ".join(sorted(file.stem for file in folder.glob("*.toml")))
            raise ConfigError(f"data.mixture: {path} is neither a TOML file nor one of {names}")
        mixture = tomllib.loads(read_text(path)).get("mixture")
        if not mixture:
            raise ConfigError(f"data.mixture: {path} has no list [[mixture]]")
        data["mixture"] = mixture


def _located(path: Path, folder: Path, presets: Path) -> Path:
    """A file in ``folder``, or the preset of that name where there is no such file."""
    file, preset = folder / path, presets / f"{path}.toml"
    return preset if not file.exists() and preset.exists() else file


def _problem(kind: type[BaseModel], error: Mapping[str, Any]) -> str:
    """One of pydantic's findings: the key, what is wrong, and which key was perhaps meant."""
    key = ".".join(map(str, error["loc"])) or "config"
    if error["type"] == "extra_forbidden":
        near = get_close_matches(key, known_keys(kind), n=1)
        return f"{key}: there is no such key" + (f" (did you mean {near[0]}?)" if near else "")
    return f"{key}: {error['msg'].removeprefix('Value error, ')}"


def known_keys(kind: type[BaseModel]) -> list[str]:
    """Every key of a configuration, ``section.key``."""
    keys = []
    for name, field in kind.model_fields.items():
        section = section_of(field.annotation)
        keys += [name] if section is None else [f"{name}.{key}" for key in known_keys(section)]
    return keys


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a key holds, also where it may be left out; None for a value."""
    for kind in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


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
