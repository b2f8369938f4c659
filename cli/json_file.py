"""The JSON file that a measurement writes its numbers into, again with every row that is finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..mforce_core.whole_file import whole_file


def check_folder(file: Path | None) -> None:
    """Raise ValueError, before anything is measured, where a file that is to be written has no folder."""
    if file is not None and not file.absolute().parent.is_dir():
        raise ValueError(f"The folder of {file} does not exist: make it first.")


def write_json(file: Path | None, numbers: dict[str, Any]) -> None:
    """Write the file, where one is asked for; who reads it meanwhile sees it whole.

    A link, a pipe or a device, such as /dev/stdout, is written through, not replaced.
    """
    if file is None:
        return
    text = json.dumps(numbers, indent=1) + "\n"
    if file.is_symlink() or (file.exists() and not file.is_file()):
        file.write_text(text, encoding="utf-8")
        return
    with whole_file(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
