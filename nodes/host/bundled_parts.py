"""The text encoder and the autoencoder inside a one-file checkpoint as ComfyUI's CLIP and VAE.

Relies on: ``comfy.sd.VAE`` and ``comfy.sd.load_text_encoder_state_dicts``, which recognize networks by their tensors.
"""

from __future__ import annotations

from pathlib import Path

import comfy.sd

from ...mforce_core.weights.bundle import has_words, read_parts, text_encoders, vae_prefix
from ...mforce_core.weights.tensor_files import open_safetensors
from . import nano_parts


def load_bundled_clip(path: Path) -> comfy.sd.CLIP | None:
    """The text encoder in a file, None where there is none."""
    if has_words(_names(path)):
        return nano_parts.load_clip(path)
    found = text_encoders(path)
    if not found:
        return None
    return comfy.sd.load_text_encoder_state_dicts(found, clip_type=comfy.sd.CLIPType.FLUX2)


def load_bundled_vae(path: Path) -> comfy.sd.VAE | None:
    """The autoencoder in a file, None where there is none."""
    prefix = vae_prefix(_names(path))
    if prefix is None:
        return None
    if prefix + "components.weight" in _names(path):
        return nano_parts.load_vae(path)
    return comfy.sd.VAE(sd=read_parts(path, prefix))


def _names(path: Path) -> list[str]:
    with open_safetensors(path) as file:
        return list(file.keys())
