"""The checkpoints that Load MF Model lists, and where they are.

Relies on: ``folder_paths.get_filename_list``, which knows neither folders nor GGUF, and ``recursive_search``.
"""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

_KIND = "diffusion_models"
_INDEX = ".safetensors.index.json"
_READ = (".safetensors", ".sft", ".gguf")


def checkpoint_names() -> list[str]:
    """Core's list of models/diffusion_models, then the GGUF files and the model folders in it."""
    listed = folder_paths.get_filename_list(_KIND)
    ggufs, folders = set(), set()
    for root in folder_paths.get_folder_paths(_KIND):
        if not os.path.isdir(root):
            continue
        for name in folder_paths.recursive_search(root, excluded_dir_names=[".git"])[0]:
            folder, file = os.path.split(name)
            if file.lower().endswith(".gguf"):
                ggufs.add(name)
            elif folder and (file == "config.json" or file.endswith(_INDEX)):
                folders.add(folder)
    # config.json of a text encoder or autoencoder stands in folders that hold no transformer.
    weights = {os.path.dirname(name) for name in listed}
    parts = {"text_encoder", "tokenizer", "vae"}
    whole = {name for name in folders & weights if os.path.basename(name) not in parts}
    return [*listed, *sorted(ggufs - set(listed)), *sorted(whole)]


def find_checkpoint(name: str) -> Path:
    """The path of an entry of `checkpoint_names`.

    Raises:
        FileNotFoundError: there is none of this name.
        ValueError: a format that is not read.
    """
    inside = os.path.relpath(os.path.join("/", name), "/")  # whatever the name says, it stays in the folder
    for root in folder_paths.get_folder_paths(_KIND):
        if os.path.isdir(os.path.join(root, inside)):
            return Path(root, inside)
    if not name.lower().endswith(_READ):
        raise ValueError(
            f"{name} is not a .safetensors file, and other formats can run code when they are opened; convert it first."
        )
    return Path(folder_paths.get_full_path_or_raise(_KIND, name))
