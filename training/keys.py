"""The reference of every configuration key, and a commented file to start from; both are read off the typed
configuration."""

import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ..mforce_core.model.config import ConfigError
from .config import TrainConfig
from .config_file import read_values, section_of
from .section import Section

_INTRODUCTION = """# Configuration keys of training

Made from the typed configuration by `mforce train --keys`. A key of a section is written `section.key` with `--set`,
and under `[section]` in a file; `mforce train --init my.toml --preset nano-mf` writes a file with all of them. *Paper*
is what Duisterhof et al. ([arXiv 2606.13676](https://arxiv.org/abs/2606.13676)) disclose; elsewhere they do not say.
"""

_NOT_SET = "not set"

#: Sections of which there may be several.
_LISTS = ("data.mixture",)


class Key(NamedTuple):
    """One row of the reference; ``default`` is None where the key has to be given."""

    name: str
    kind: str
    default: str | None
    meaning: str
    paper: str


def reference() -> str:
    """The page in Markdown, a table per section."""
    parts = [_INTRODUCTION]
    for title, section in sections():
        description = _one_line(section.__doc__ or "").replace("``", "`")
        parts.append(f"## {f'`{_header(title)}`' if title else 'Top level'}\n\n{description}\n")
        parts.append("| key | type | default | meaning | paper |\n|---|---|---|---|---|")
        for key in keys_of(section):
            default = {None: "required", _NOT_SET: _NOT_SET}.get(key.default, f"`{key.default}`")
            parts.append(f"| `{key.name}` | {key.kind} | {default} | {key.meaning} | {key.paper} |")
        parts.append("")
    return "\n".join(parts)


def sections(name: str = "", section: type[Section] = TrainConfig) -> Iterator[tuple[str, type[Section]]]:
    """The top level, whose name is empty, and the sections in order, each before those inside it."""
    yield name, section
    for key, field in section.model_fields.items():
        inside = section_of(field.annotation)
        if inside is not None:
            yield from sections(f"{name}.{key}" if name else key, inside)


def keys_of(section: type[Section]) -> list[Key]:
    """The keys of a section that hold values."""
    return [
        Key(name, _kind(field.annotation), _default(field), _meaning(field).replace("``", "`"), _paper(field))
        for name, field in section.model_fields.items()
        if section_of(field.annotation) is None or get_origin(field.annotation) is tuple
    ]


def commented_file(preset: str) -> str:
    """A TOML file with the values of a preset and every other key at its default, each under its meaning.

    Raises:
        ConfigError: no preset has this name.
    """
    try:
        values = read_values(Path(preset))
    except FileNotFoundError:
        raise ConfigError(f"--preset {preset}: there is no such preset") from None
    lines = [f"# A copy of {preset}: lines that begin with # show defaults."]
    for title, section in sections():
        given = values
        for name in title.split(".") if title else ():
            given = given.get(name, {})
        if title:
            optional = not given and (title == "heldout" or title in _LISTS)
            lines += ["", f"{'# ' if optional else ''}{_header(title)}"]
        for key in keys_of(section):
            lines.append(f"# {key.meaning.replace('`', '')}")
            if key.name in given:
                lines.append(f"{key.name} = {_toml(given[key.name])}")
            else:
                lines.append(f"# {key.name} = {'...' if key.default is None else key.default}")
    return "\n".join(lines) + "\n"


def _header(title: str) -> str:
    return f"[[{title}]]" if title in _LISTS else f"[{title}]"


def _kind(annotation: Any) -> str:
    """A type as one reads it."""
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return _kind(next(kind for kind in get_args(annotation) if kind is not type(None)))
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if section_of(annotation) is not None:
        return "list of sections, or text"
    if get_origin(annotation) is tuple:
        first = _kind(get_args(annotation)[0])
        return f"list of {first}s" if Ellipsis in get_args(annotation) else f"{len(get_args(annotation))} {first}s"
    names = {Path: "path", str: "text", int: "integer", float: "number", bool: "true or false"}
    return names[annotation]


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    return _NOT_SET if field.default is None else _toml(field.default)


def _meaning(field: FieldInfo) -> str:
    return _one_line(field.description or "")


def _paper(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra["paper"]) if isinstance(extra, dict) and "paper" in extra else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _toml(value: Any) -> str:
    """A value as TOML writes it: JSON's way, for all kinds that a configuration has."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)
