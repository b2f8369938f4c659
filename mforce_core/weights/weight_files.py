"""Which files hold a model: those of a release folder, and all shards of which one is given."""

import json
import os
import re
from pathlib import Path

from ..text_file import read_text
from .tensor_files import CheckpointError

# Other parts of a release folder.
_COMPANIONS = ("ae_", "autoencoder", "ae.", "flux2-vae", "text_encoder", "vae")
_SHARD = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.safetensors$")
_INDEX = ".safetensors.index.json"


def weight_files(path: Path) -> list[Path]:
    """The files that hold a model: of a folder those of its transformer, of one shard all.

    Raises:
        CheckpointError: nothing there, or a shard is missing.
    """
    if path.is_dir():
        return _transformer_files(path)
    if path.is_file():
        return _all_shards(path)
    raise CheckpointError(f"{path} does not exist: give a release folder or a .safetensors file")


def _transformer_files(folder: Path) -> list[Path]:
    """The files of a folder that hold the transformer, of a diffusers pipeline those of its ``transformer`` folder."""
    files = sorted(p for p in folder.glob("*.safetensors") if p.is_file() and not p.name.startswith(_COMPANIONS))
    single = folder / "model.safetensors"
    if single in files:
        return [single]
    indices = [p for p in sorted(folder.glob(f"*{_INDEX}")) if not p.name.startswith(_COMPANIONS)]
    if len(indices) == 1:
        return _indexed_files(indices[0])
    if files:
        for file in files:
            _all_shards(file)
        return files
    if (folder / "transformer").is_dir():
        return _transformer_files(folder / "transformer")
    ggufs = sorted(folder.glob("*.gguf"))
    if len(ggufs) == 1:
        return ggufs
    if ggufs:
        raise CheckpointError(f"{folder} has {len(ggufs)} .gguf files: give the one that is meant")
    raise CheckpointError(f"{folder} has no .safetensors file with a transformer")


def _indexed_files(index: Path) -> list[Path]:
    """The shards that an index lists."""
    try:
        names = sorted(set(json.loads(read_text(index))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{index} does not list the shards of a model: download it again") from None
    files = []
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} names the file {str(name)[:80]!r}, which is not in its folder")
        if not os.path.isfile(index.parent / name):  # also False for a name that no file system takes
            raise CheckpointError(f"{index.parent} lacks the shard {name[:100]}: download it")
        files.append(index.parent / name)
    if not files:
        raise CheckpointError(f"{index} lists no shard: download it again")
    return files


def _all_shards(file: Path) -> list[Path]:
    """The file, or all shards of the model of which it is one."""
    found = _SHARD.match(file.name)
    if found is None:
        return [file]
    stem, count = found[1], int(found[3])
    present = sorted(p for p in file.parent.glob("*.safetensors") if (m := _SHARD.match(p.name)) and m[1] == stem)
    if len(present) != count:
        raise CheckpointError(f"{file.parent} has {len(present)} of the {count} shards of {stem}: download the others")
    return present
