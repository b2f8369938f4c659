"""The frozen encoders of images and captions, and a mark by which files made with them are told apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...mforce_core import load_text_encoder
from ...mforce_core.qwen import QwenTextEncoder, load_qwen_text_encoder
from ...mforce_core.text import WordTextEncoder

TextEncoder = WordTextEncoder | QwenTextEncoder

#: Word-level text encoder in a model folder.
_WORDS_FILE = "text_encoder.safetensors"
#: Bytes at either end of a file that its mark is made of.
_ENDS = 1 << 20


def open_text_encoder(path: Path, device: str = "cpu") -> TextEncoder:
    """The word-level encoder of a small model (file or model folder), or a folder with Qwen3.

    Raises:
        ValueError: neither.
    """
    if path.is_dir() and not (path / _WORDS_FILE).exists():
        return load_qwen_text_encoder(path, device=device)
    return load_text_encoder(path)


def fingerprint(path: Path) -> str:
    """A mark of the weights at ``path``: names, sizes, and both ends of every file.

    Raises:
        ValueError: there is nothing.
    """
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.is_file() and (f.suffix == ".safetensors" or "config" in f.name))
    else:
        files = [path]
    if not files or not files[0].is_file():
        raise ValueError(f"{path} does not exist, or holds no .safetensors weights.")
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_ENDS))
            stream.seek(max(0, size - _ENDS))
            digest.update(stream.read())
    return digest.hexdigest()[:16]
