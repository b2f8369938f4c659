"""Either kind of text encoder, by what is on the disk."""

from __future__ import annotations

from pathlib import Path

from .qwen import QwenTextEncoder, load_qwen_text_encoder
from .words import WordTextEncoder, load_text_encoder

TextEncoder = WordTextEncoder | QwenTextEncoder

#: Word-level text encoder in the folder of a small model.
WORDS_FILE = "text_encoder.safetensors"


def open_text_encoder(path: Path, device: str = "cpu") -> TextEncoder:
    """The word-level encoder of a small model (file or model folder), or a folder with Qwen3.

    Raises:
        ValueError: neither.
    """
    if path.is_dir() and not (path / WORDS_FILE).exists():
        return load_qwen_text_encoder(path, device=device)
    return load_text_encoder(path)
