"""What a trained model's ``config.json`` names so that its folder opens alone: text encoder, autoencoder, and the base
that its weights are an update of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from ..text_file import read_text

#: Starts a path inside this package, which is the same on every machine.
PACKAGE_PREFIX = "mforce:"
_PACKAGE = Path(__file__).parent.parent.parent.resolve()

#: Keys of ``config.json``.
Part = Literal["text_encoder", "vae", "base"]


def portable(path: Path) -> str:
    """A path as ``config.json`` names it: inside the package by its prefix, others absolute."""
    whole = path.resolve()
    if whole.is_relative_to(_PACKAGE):
        return PACKAGE_PREFIX + whole.relative_to(_PACKAGE).as_posix()
    return str(whole)


def in_package(name: str) -> Path:
    """The file that a name with the prefix means. Raises ValueError where that is outside the package."""
    path = (_PACKAGE / name.removeprefix(PACKAGE_PREFIX)).resolve()
    if not path.is_relative_to(_PACKAGE):
        raise ValueError(f"{name[:80]} leads out of the package")
    return path


def named_part(folder: Path, part: Part) -> Path | None:
    """What ``config.json`` in a model's folder names as this part; None where it names none.

    Raises:
        ValueError: it names what is no path on this machine's own disks, or what is not there.
    """
    config = folder / "config.json"
    if not folder.is_dir() or not config.is_file():
        return None
    try:
        name = json.loads(read_text(config)).get(part)
    except (ValueError, AttributeError, RecursionError):
        return None  # read_config says what is wrong with the file
    if name is None:
        return None
    if not isinstance(name, str) or "://" in name or name.startswith(("//", "\\\\")) or "\0" in name:
        raise ValueError(f"{config} gives {str(name)[:60]!r} as {part}: use a path of this machine")
    path = in_package(name) if name.startswith(PACKAGE_PREFIX) else folder / name
    if not path.exists():
        raise ValueError(f"{config} names {name[:200]} as {part}, and it is not there: say where it is with `{part}`.")
    return path
