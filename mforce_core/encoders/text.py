"""Either kind of text encoder, by what is on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor

from .qwen import QwenTextEncoder, load_qwen_text_encoder
from .words import WORDS_FILE, WordTextEncoder, load_text_encoder

TextEncoder = WordTextEncoder | QwenTextEncoder


def open_text_encoder(path: Path, device: str = "cpu") -> TextEncoder:
    """The word-level encoder of a small model (file or model folder), or a folder with Qwen3.

    Raises:
        ValueError: neither.
    """
    if path.is_dir() and not (path / WORDS_FILE).exists():
        return load_qwen_text_encoder(path, device=device)
    return load_text_encoder(path)


def encode_prompts(
    path: Path, prompts: Iterable[str], channels: int, device: str, say: Callable[[str], None]
) -> dict[str, Tensor]:
    """Load a text encoder, encode prompts, and let it go.

    Args:
        path: as in `open_text_encoder`.
        channels: features per token that the model needs.
        say: told of words that a small model does not know.

    Returns:
        Prompt -> features (1, T, channels).

    Raises:
        ValueError: there is no text encoder, or it is another model's.
    """
    encoder = open_text_encoder(path, device)
    prompts = list(prompts)
    if isinstance(encoder, WordTextEncoder):
        unknown = list(dict.fromkeys(word for prompt in prompts for word in encoder.unknown_words(prompt)))
        if unknown:
            known = " ".join(encoder.vocabulary)
            say(f"The small model does not know: {', '.join(unknown)}. It knows: {known}.")
        longest = max((len(encoder.words(prompt)) for prompt in prompts), default=0)
        if longest > encoder.length:
            say(f"The prompt has {longest} words and the small model reads the first {encoder.length}: shorten it.")
    features = {prompt: encoder.encode([prompt]) for prompt in prompts}
    for encoding in features.values():
        if encoding.shape[-1] != channels:
            raise ValueError(
                f"The text encoder {path} gives {encoding.shape[-1]} features and the model needs {channels}: "
                "Qwen3-8B is for klein-9B models such as the release, Qwen3-4B for klein-4B."
            )
    return features
