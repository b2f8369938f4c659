"""Files of prompts."""

from __future__ import annotations

from pathlib import Path

from ..mforce_core.text_file import read_text


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, one a line.

    Raises:
        ValueError: it cannot be read, or holds none.
    """
    try:
        lines = read_text(path).splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it in that encoding.") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{path} holds no prompt: one per line.")
    return prompts
