"""Text encoders and autoencoders in files of their own, for checkpoints that hold neither.

Relies on: ``folder_paths`` for models/text_encoders and models/vae; ``comfy.sd.load_clip`` with the type of FLUX.2 and
``comfy.sd.VAE``, as core's CLIPLoader and VAELoader use them.
"""

from __future__ import annotations

import comfy.sd
import comfy.utils
import folder_paths

from .missing_part import MissingPart

#: The choice of what is in the checkpoint itself.
OWN = "from the checkpoint"
_READ = (".safetensors", ".sft")


def part_names(kind: str) -> list[str]:
    """What can be chosen: the checkpoint's own part, then the files of models/``kind``."""
    return [OWN, *(name for name in folder_paths.get_filename_list(kind) if name.lower().endswith(_READ))]


def load_clip(name: str) -> comfy.sd.CLIP:
    """A Qwen3 of models/text_encoders.

    Raises:
        ValueError: it is no text encoder that this ComfyUI knows.
    """
    path = folder_paths.get_full_path_or_raise("text_encoders", name)
    embeddings = folder_paths.get_folder_paths("embeddings")
    try:
        return comfy.sd.load_clip([path], embedding_directory=embeddings, clip_type=comfy.sd.CLIPType.FLUX2)
    except (RuntimeError, KeyError, AttributeError) as error:
        raise ValueError(f"{name} is not a text encoder of this model; choose the Qwen3 that fits its size.") from error


def load_vae(name: str) -> comfy.sd.VAE:
    """An autoencoder of models/vae.

    Raises:
        ValueError: it is no autoencoder that this ComfyUI knows.
    """
    path = folder_paths.get_full_path_or_raise("vae", name)
    tensors, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    vae = comfy.sd.VAE(sd=tensors, metadata=metadata)
    try:
        vae.throw_exception_if_invalid()
    except RuntimeError as error:
        raise ValueError(f"{name} is not an autoencoder of this model; choose the FLUX.2 VAE.") from error
    return vae


def missing_clip(checkpoint: str) -> MissingPart:
    """In place of the CLIP of a checkpoint of this name."""
    return MissingPart(
        f"{checkpoint} carries no text encoder. Choose the model's Qwen3 as text_encoder of Load MF Model, or add a"
        " CLIPLoader of type flux2 with it."
    )


def missing_vae(checkpoint: str) -> MissingPart:
    """In place of its VAE."""
    return MissingPart(
        f"{checkpoint} carries no VAE. Choose the FLUX.2 VAE as vae of Load MF Model, or add a VAELoader with it."
    )
