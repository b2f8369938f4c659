"""Which files and which versions a result came from."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

from ...version import __version__
from ..settings import Settings

#: Larger files are identified by their size and both ends: hashing 24 GB takes longer than sampling.
_WHOLE_FILE = 2**30
_END = 2**24


def identify(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file; above 1 GiB, under another name, of its first and last 16 MiB."""
    size = path.stat().st_size
    if size <= _WHOLE_FILE:
        with path.open("rb") as file:
            return {"bytes": size, "sha256": _digest(file)}
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_END))
        file.seek(-_END, 2)
        digest.update(file.read(_END))
    return {"bytes": size, "sha256_of_both_16MiB_ends": digest.hexdigest()}


def input_files(settings: Settings) -> dict[str, Any]:
    """Size and hash of the input files of a run, by role."""
    return {role: identify(Path(path)) for role, path in settings.files().items()}


def versions() -> dict[str, str]:
    """Versions of everything that can change a result, and the machine's kind."""
    found = {"mforce": __version__, "python": platform.python_version(), "machine": platform.platform()}
    for package in ("torch", "numpy", "scipy", "pillow", "safetensors", "trimesh", "OpenEXR", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()
