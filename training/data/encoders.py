"""The frozen encoders of images and captions, and a mark by which files made with them are told apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...mforce_core.encoders.autoencoder_files import DECODER_FILE, ENCODER_FILE, ONE_FILE_NAMES, autoencoder_files
from ...mforce_core.encoders.words import WORDS_FILE

#: Bytes at either end of a file that its mark is made of.
_ENDS = 1 << 20


def text_mark(path: Path) -> str:
    """A mark of a text encoder's weights. Raises ValueError where there are none."""
    if not path.is_dir():
        return _mark([path])
    words = path / WORDS_FILE
    return _mark([words] if words.exists() else sorted(path.rglob("*.safetensors")))


def autoencoder_mark(path: Path) -> str:
    """A mark of an autoencoder's weights. Raises ValueError where there are none."""
    if not path.is_dir():
        return _mark([path])
    names = (ENCODER_FILE, DECODER_FILE, *ONE_FILE_NAMES)
    return _mark([path / name for name in names if (path / name).exists()] or autoencoder_files(path))


def _mark(files: list[Path]) -> str:
    """Of sizes and both ends of files: fast, and different for weights that are different."""
    if not files or not files[0].is_file():
        raise ValueError(f"There are no .safetensors weights at {files[0] if files else 'the folder that was named'}.")
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{size} ".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_ENDS))
            stream.seek(max(0, size - _ENDS))
            digest.update(stream.read())
    return digest.hexdigest()[:16]
