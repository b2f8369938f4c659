"""The text encoder and the autoencoder that come with a checkpoint, inside its file or folder, as CLIP and VAE.

Relies on: ``comfy.sd.VAE`` and ``comfy.sd.load_text_encoder_state_dicts``, which recognize networks by their tensors;
``comfy.utils.convert_old_quants``.
"""

from __future__ import annotations

import logging
from pathlib import Path

import comfy.sd
import comfy.utils
import folder_paths

from ...mforce_core.encoders.autoencoder_files import autoencoder_files, read_tensors
from ...mforce_core.encoders.familiarity import load_familiarity
from ...mforce_core.encoders.words import WORDS_FILE
from ...mforce_core.release import RGB_CHANNELS
from ...mforce_core.weights.bundle import (
    WORDS_PREFIX,
    file_with,
    has_words,
    locate,
    read_named,
    text_encoder_names,
    vae_prefix,
)
from ...mforce_core.weights.named_parts import Part, named_part
from . import nano_parts

logger = logging.getLogger(__name__)


def load_bundled_clip(path: Path) -> comfy.sd.CLIP | None:
    """The text encoder in a checkpoint or a small model's folder, or a word-level one that the folder's ``config.json``
    names; None where there is none.

    Raises:
        ValueError: there are several, or this ComfyUI does not know it.
    """
    if path.is_dir() and (path / WORDS_FILE).exists():
        return nano_parts.load_clip(path)
    location = locate(path)
    if has_words(location):
        return nano_parts.load_clip(file_with(path, WORDS_PREFIX))
    found = text_encoder_names(location)
    if not found:
        named = _named(path, "text_encoder")
        words = named is not None and (named.is_file() or (named / WORDS_FILE).exists())
        return nano_parts.load_clip(named) if named is not None and words else None
    if len(found) > 1:
        raise ValueError(f"it holds {len(found)} text encoders ({', '.join(found)}), and this model takes one")
    tensors, _ = comfy.utils.convert_old_quants(read_named(location, next(iter(found.values()))), metadata={})
    return comfy.sd.load_text_encoder_state_dicts(
        [tensors],
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        clip_type=comfy.sd.CLIPType.FLUX2,
    )


def load_bundled_vae(path: Path) -> comfy.sd.VAE | None:
    """The autoencoder in a checkpoint or a model folder, or the one that the folder's ``config.json`` names; None where
    there is none."""
    model, prefix = path, vae_prefix(locate(path))
    if prefix is not None:
        path = file_with(path, prefix)
    elif path.is_file() or not autoencoder_files(path):
        named = _named(path, "vae")
        if named is None:
            return None
        path = named
    tensors = read_tensors(path)
    if "components.weight" in tensors:
        vae = nano_parts.load_vae(path)
        vae.first_stage_model.familiarity = load_familiarity(model)  # the autoencoder may be lent by another model
        return vae
    # Core cannot tell the channels of the tiny autoencoder from its tensors.
    return comfy.sd.VAE(sd=tensors, metadata={"tae_latent_channels": RGB_CHANNELS})


def _named(folder: Path, part: Part) -> Path | None:
    """The part that the folder's ``config.json`` names, if it is there: the model can be used without it."""
    try:
        return named_part(folder, part)
    except ValueError as error:
        logger.warning("%s", error)
        return None
