"""The three networks of a model on the disk: transformer, text encoder and autoencoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .encoders.autoencoder_files import autoencoder_files
from .encoders.words import WORDS_FILE
from .release import NANO_SIZE, RELEASE_SIZE
from .settings import ALL_BUILT_IN
from .text_file import read_text
from .weights.bundle import WORDS_PREFIX, file_with, has_words, text_encoder_names, vae_prefix
from .weights.header import CheckpointHeader, check_tensors, read_header
from .weights.named_parts import named_part

#: Of the weights of the built-in models: this package's own.
BUILT_IN_LICENSE = "Apache-2.0"

_MODELS = Path(__file__).parent.parent / "models"


@dataclass(frozen=True)
class Parts:
    """Where the three networks of a model are."""

    model: Path
    text_encoder: Path
    vae: Path

    def files(self) -> dict[str, list[Path]]:
        """The files of each part that decide its output."""
        header = read_header(self.model)
        update = [] if header.update is None else [header.update]
        return {
            "model": sorted({*header.files, *update, *self.model.glob("config.json")}),
            "text_encoder": _weights_and_settings(self.text_encoder),
            "vae": autoencoder_files(self.vae),
        }

    def header(self) -> CheckpointHeader:
        """The transformer's header, checked.

        Raises:
            ValueError: the checkpoint is damaged or foreign, or has no depth stream.
        """
        header = read_header(self.model)
        problems = check_tensors(header.shapes, header.architecture)
        if problems:
            raise ValueError(f"{self.model} does not hold the model it should: {'; '.join(problems)}.")
        if not header.architecture.has_depth:
            raise ValueError(f"{self.model} is a text-to-image base without a depth stream: give a trained model.")
        return header

    def trained_size(self) -> tuple[int, int]:
        """(width, height) the model was trained for: ``image_size`` of its configuration, or that of its kind."""
        return trained_size(self.model, self.text_encoder)


def trained_size(model: Path, text_encoder: Path) -> tuple[int, int]:
    """(width, height) a model was trained for: ``image_size`` of its configuration, or that of its kind."""
    config = model / "config.json"
    declared = declared_size(model, {} if config.is_file() else read_header(model).metadata)
    if declared is not None:
        return declared
    side = NANO_SIZE if text_encoder.is_file() else RELEASE_SIZE  # words are a file, Qwen3 is a folder
    return side, side


def declared_size(model: str | Path, metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """(width, height) in pixels that a checkpoint says it was trained at, None where it says nothing.

    Args:
        model: a folder, whose ``config.json`` counts, or a file, of which the metadata counts before a ``config.json``
            beside it.

    Raises:
        ValueError: what it says is not a size.
    """
    model = Path(model)
    config = (model if model.is_dir() else model.parent) / "config.json"
    text = None if model.is_dir() else metadata.get("config")
    try:
        if text is None:
            text = read_text(config) if config.is_file() else metadata.get("config", "{}")
        side = json.loads(text).get("image_size")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"The configuration of {model} cannot be read: {str(error)[:160]}.") from None
    if side is None:
        return None
    sides = [side, side] if isinstance(side, int) else side
    if not (isinstance(sides, list) and len(sides) == 2 and all(type(s) is int and s > 0 for s in sides)):
        raise ValueError(f"{model} gives {str(side)[:40]!r} as image_size: use the width and height.")
    return sides[0], sides[1]


def _weights_and_settings(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix in (".safetensors", ".json") and file.is_file())


def model_path(name: str) -> Path:
    """The path of a model, which is built in where it is called nano or nano-fast."""
    return _MODELS / name if name in ALL_BUILT_IN else Path(name)


def is_built_in(path: Path) -> bool:
    """Whether a path is the folder of a built-in model."""
    return path.resolve() in {model_path(name).resolve() for name in ALL_BUILT_IN}


def find_parts(model: str, text_encoder: str | None = None, vae: str | None = None) -> Parts:
    """Locate the model's files.

    Args:
        model: release folder or ``.safetensors`` file, or "nano" or "nano-fast".
        text_encoder, vae: where they are if not in the model's folder, and not where its ``config.json`` says.

    Raises:
        ValueError: a folder or file is missing, and the sentence says which setting names it; or the model is a file of
            another kind.
    """
    found = model_path(model)
    if not found.exists():
        raise ValueError(
            f"The model {found} does not exist: give {', '.join(ALL_BUILT_IN)}, a release folder or a .safetensors "
            "file with `model`."
        )
    # What is no model is told so before what is missing beside it.
    inside = read_header(found).others if None in (text_encoder, vae) else ()
    words = Path(text_encoder) if text_encoder is not None else _own_text_encoder(found, inside)
    autoencoder = Path(vae or (found if found.is_dir() else found.parent))
    if vae is None and (prefix := vae_prefix(inside)) is not None:
        autoencoder = file_with(found, prefix)
    elif vae is None and not autoencoder_files(autoencoder):
        named_vae = named_part(found, "vae")
        if named_vae is None:
            raise ValueError(
                f"{found} has no autoencoder beside it: give the FLUX.2 autoencoder, or the folder of the model that it"
                " was converted from, with `vae`."
            )
        autoencoder = named_vae
    for setting, path in (("`text_encoder`", words), ("`vae`", autoencoder)):
        if not path.exists():
            raise ValueError(f"{path}, given with {setting}, does not exist.")
    return Parts(found, words, autoencoder)


def find_text_encoder(model: Path, text_encoder: Path | None = None) -> Path:
    """Where the text encoder of a model is, for work that needs no autoencoder.

    Raises:
        ValueError: as :func:`find_parts`.
    """
    words = text_encoder if text_encoder is not None else _own_text_encoder(model, read_header(model).others)
    if not words.exists():
        raise ValueError(f"{words}, given with `text_encoder`, does not exist.")
    return words


def _own_text_encoder(found: Path, inside: tuple[str, ...]) -> Path:
    """In the model's file, beside it, or where its configuration says; ``inside`` names the file's other tensors."""
    if has_words(inside):
        return file_with(found, WORDS_PREFIX)
    if text_encoder_names(inside):
        raise ValueError(
            f"{found} holds Qwen3 without its tokenizer, which only ComfyUI brings along: give a folder with Qwen3 with"
            " `text_encoder`."
        )
    words = found / WORDS_FILE
    if not words.exists():
        named = named_part(found, "text_encoder") or words
        words = named / WORDS_FILE if (named / WORDS_FILE).exists() else named
    if not words.exists():
        raise ValueError(
            f"{found} has no text encoder of its own: give a folder with Qwen3 (8B for the release, 4B for one "
            "trained from klein-4B), or that of the model that it was converted from, with `text_encoder`."
        )
    return words
